"""What kubelet may ask of a process: /healthz and /readyz.

Each connection is for one question, so nothing is kept open and nobody can hold one up.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

from squall.http import Answer, Answering, Connection, Question


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
    server = await asyncio.get_running_loop().create_unix_server(each(answer), str(socket))
    try:
        async with server:
            yield
    finally:
        _remove(socket)


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


def each(answering: Answering) -> Callable[[], Connection]:
    """Make a connection for everybody who comes, for one GET."""
    among: set[Connection] = set()
    return lambda: Connection(lambda question: _of_get(question, answering), among)
