"""What Prometheus may ask of a process: /metrics.

Imported only where it is served: who is not asked for metrics need not hold what makes them.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from squall.api.cluster import Cluster
from squall.app.admittance import Admittance
from squall.app.inspection import address_of, each
from squall.clock import Clock
from squall.http import Answer, Question
from squall.metrics import REGISTRY

_HANDSHAKE_SECONDS = 10.0


@asynccontextmanager
async def metrics_served(
    address: str,
    cluster: Cluster,
    clock: Clock,
    *,
    tls: ssl.SSLContext | None = None,
    registry: CollectorRegistry = REGISTRY,
) -> AsyncIterator[int]:
    """Answer /metrics to callers whose token the API server knows and who may read it there.

    Args:
        address: `ADDRESS:PORT`; port 0 takes a free one, an empty address means all.
        cluster: asked who a token belongs to, and what its owner may do.
        clock: for how long that is remembered.
        tls: certificate and key; None: plain HTTP, where tokens can be read on the way.
        registry: what is shown.

    Yields:
        The port.

    Raises:
        OSError: the address cannot be listened on.
        ValueError: it is no `ADDRESS:PORT`.
    """
    admittance = Admittance(cluster, clock)

    async def answer(question: Question) -> Answer:
        if question.path != "/metrics":
            return Answer(HTTPStatus.NOT_FOUND, b"ask for /metrics\n")
        status = await admittance.judge(question.authorization)
        if status is not HTTPStatus.OK:
            return Answer(status, f"{status.phrase}: {status.description}\n".encode())
        return Answer(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_LATEST)

    host, port = address_of(address)
    server = await asyncio.get_running_loop().create_server(
        each(answer),
        host or None,
        port,
        ssl=tls,
        ssl_handshake_timeout=_HANDSHAKE_SECONDS if tls else None,
    )
    async with server:
        yield int(server.sockets[0].getsockname()[1])
