"""What kubelet and Prometheus may ask of a process: /healthz and /readyz, and /metrics.

Each connection is for one question, so nothing is kept open and nobody can hold one up.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from squall.api.cluster import Cluster
from squall.app.admittance import Admittance
from squall.clock import Clock
from squall.http import Answer, Answering, Connection, Question
from squall.telemetry import REGISTRY

_HANDSHAKE_SECONDS = 10.0


@asynccontextmanager
async def health_served(socket: Path, missing: Callable[[], str]) -> AsyncIterator[None]:
    """Answer /healthz and /readyz on a Unix socket; any answer means that the event loop turns.

    Args:
        socket: where to listen; a left-over of an earlier process is replaced.
        missing: says what this process still waits for; empty when it is ready.

    Raises:
        OSError: the socket cannot be made.
    """

    async def answer(question: Question) -> Answer:
        if question.path == "/healthz":
            return Answer(HTTPStatus.OK, b"ok\n")
        if question.path != "/readyz":
            return Answer(HTTPStatus.NOT_FOUND, b"ask for /healthz or /readyz\n")
        if lacking := missing():
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {lacking}\n".encode())
        return Answer(HTTPStatus.OK, b"ok\n")

    _remove(socket)
    server = await asyncio.get_running_loop().create_unix_server(_each(answer), str(socket))
    try:
        async with server:
            yield
    finally:
        _remove(socket)


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
        _each(answer),
        host or None,
        port,
        ssl=tls,
        ssl_handshake_timeout=_HANDSHAKE_SECONDS if tls else None,
    )
    async with server:
        yield int(server.sockets[0].getsockname()[1])


def address_of(text: str) -> tuple[str, int]:
    """Read `ADDRESS:PORT`, such as `0.0.0.0:9443`, `[::]:9443` or `:9443`.

    Raises:
        ValueError: it is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{text!r} is not ADDRESS:PORT, such as 0.0.0.0:9443")
    return host.strip("[]"), int(port)


def _remove(socket: Path) -> None:
    socket.unlink(missing_ok=True)


async def _of_get(question: Question, answering: Answering) -> Answer:
    if question.method != "GET":
        return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET is answered\n", last=True)
    return replace(await answering(question), last=True)


def _each(answering: Answering) -> Callable[[], Connection]:
    """Make a connection for everybody who comes."""
    among: set[Connection] = set()
    return lambda: Connection(lambda question: _of_get(question, answering), among)
