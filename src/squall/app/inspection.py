"""What kubelet and Prometheus may ask of a process: /healthz and /readyz, and /metrics.

Each connection is for one question, so nothing is kept open and nobody can hold one up.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import h11
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from squall.api.cluster import Cluster
from squall.app.admittance import Admittance
from squall.clock import Clock
from squall.telemetry import REGISTRY

QUESTION_SECONDS = 10.0
"""How long a question may take to arrive, and its answer to leave."""
_QUESTION_OCTETS = 16384
_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question is answered with."""

    status: HTTPStatus
    text: bytes
    content_type: str = _PLAIN


Answering = Callable[[str, str], Awaitable[Answer]]
"""From the path and the Authorization header of a GET to its answer."""


@asynccontextmanager
async def health_served(socket: Path, missing: Callable[[], str]) -> AsyncIterator[None]:
    """Answer /healthz and /readyz on a Unix socket; any answer means that the event loop turns.

    Args:
        socket: where to listen; a left-over of an earlier process is replaced.
        missing: says what this process still waits for; empty when it is ready.

    Raises:
        OSError: the socket cannot be made.
    """

    async def answer(path: str, _: str) -> Answer:
        if path == "/healthz":
            return Answer(HTTPStatus.OK, b"ok\n")
        if path != "/readyz":
            return Answer(HTTPStatus.NOT_FOUND, b"ask for /healthz or /readyz\n")
        if lacking := missing():
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {lacking}\n".encode())
        return Answer(HTTPStatus.OK, b"ok\n")

    _remove(socket)
    server = await asyncio.start_unix_server(_each(answer), socket)
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

    async def answer(path: str, authorization: str) -> Answer:
        if path != "/metrics":
            return Answer(HTTPStatus.NOT_FOUND, b"ask for /metrics\n")
        status = await admittance.judge(authorization)
        if status is not HTTPStatus.OK:
            return Answer(status, f"{status.phrase}: {status.description}\n".encode())
        return Answer(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_LATEST)

    host, port = address_of(address)
    patience = QUESTION_SECONDS if tls else None
    server = await asyncio.start_server(
        _each(answer), host or None, port, ssl=tls, ssl_handshake_timeout=patience
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


def _each(
    answering: Answering,
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Whoever asks slowly, leaves early or talks nonsense gets no answer, and no log line.
            with suppress(TimeoutError, OSError, h11.RemoteProtocolError):
                async with asyncio.timeout(QUESTION_SECONDS):
                    await _converse(reader, writer, answering)
        finally:
            writer.close()

    return serve


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answering: Answering
) -> None:
    wire = h11.Connection(h11.SERVER, max_incomplete_event_size=_QUESTION_OCTETS)
    while (event := wire.next_event()) is h11.NEED_DATA:
        wire.receive_data(await reader.read(4096))
    if not isinstance(event, h11.Request):
        return
    answer = Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET is answered\n")
    if event.method == b"GET":
        path = event.target.decode("ascii").partition("?")[0]
        tokens = [value for name, value in event.headers if name == b"authorization"]
        answer = await answering(path, tokens[0].decode("latin-1") if len(tokens) == 1 else "")
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.text))),
        ("Connection", "close"),
    ]
    head = wire.send(h11.Response(status_code=answer.status, headers=headers))
    writer.write(head + answer.text)
    await writer.drain()
