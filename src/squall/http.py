"""As much HTTP/1.1 as API servers, kubelets and Prometheus speak, with a limit on everything.

A framework costs 8 MB of memory in every replica and on every node, for a handful of questions.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import httptools

from squall.telemetry import logger

LARGEST_BODY = 3 * 1024 * 1024
"""Octets; API servers take no larger object either."""
LARGEST_HEAD = 64 * 1024
MOST_CONNECTIONS = 256
IDLE_SECONDS = 120.0
"""API servers close what was idle for 90 s. Who closes first may cut off a request."""
REQUEST_SECONDS = 10.0
"""How long a request may take to arrive, and its answer to leave."""

_LOG = logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client gets."""

    status: HTTPStatus
    body: bytes
    type: str = "text/plain; charset=utf-8"
    last: bool = False
    """Close the connection after it."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks."""

    method: str
    path: str
    """Without what stands behind a question mark."""
    authorization: str = ""
    """The header of this name; empty where there is none, or more than one."""
    body: bytes = b""


Answering = Callable[[Question], Awaitable[Answer]]
"""From a question to its answer."""


class TooLarge(Exception):
    """The request is larger than anybody may send."""


class Connection(asyncio.Protocol):
    """One client: a request at a time, as many as it likes.

    Args:
        answering: who knows the answers.
        among: all open connections; this one adds and removes itself.
    """

    def __init__(self, answering: Answering, among: "set[Connection]") -> None:
        self.idle = True
        """Nothing has arrived since the last answer."""
        self.gone = asyncio.Event()
        self._answering, self._among = answering, among
        self._transport: asyncio.Transport
        self._leaving = False
        self._task: asyncio.Task[None] | None = None
        self.answered = False
        """Has it ever asked anything? Who comes to ask does so at once."""
        self.since = 0.0
        """When it came, or got its last answer."""
        self._begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (for the type alone)
        self._transport = transport
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        self._timer = loop.call_later(REQUEST_SECONDS, transport.abort)
        if len(self._among) >= MOST_CONNECTIONS and not self._make_room():
            transport.abort()
        else:
            self._among.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it, and what nobody waits for any more."""
        self._among.discard(self)
        self.gone.set()
        self._timer.cancel()
        if self._task:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Read on; a request that makes no sense is the last one."""
        if self._task or self._transport.is_closing():
            self._transport.abort()  # sent ahead; nobody who asks us does that
            return
        if self.idle:
            self.idle = False
            self._limit(REQUEST_SECONDS)
        try:
            self._count(len(data))
            self._parser.feed_data(data)
        except (httptools.HttpParserError, TooLarge, httptools.HttpParserUpgrade) as wrong:
            large = isinstance(wrong, TooLarge) or isinstance(wrong.__context__, TooLarge)
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if large else HTTPStatus.BAD_REQUEST
            said = f"more than {LARGEST_BODY} octets" if large else "this is no HTTP/1.1 request"
            self._leaving = True
            self._send(Answer(status, said.encode()))

    def leave(self) -> None:
        """Close after the answer that is being made, or at once where there is none."""
        self._leaving = True
        if self.idle:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def _make_room(self) -> bool:
        """Close who asks nothing: whoever takes all places and is silent would keep others out."""
        silent = [one for one in self._among if one.idle]
        if not silent:
            return False
        longest = min(silent, key=lambda one: (one.answered, one.since))
        self._among.discard(longest)
        longest.abort()
        return True

    def _count(self, octets: int) -> None:
        """Limit the head before it is parsed; some of the body may come with it."""
        self._arrived += octets
        if not self._headed and self._arrived > LARGEST_HEAD + LARGEST_BODY:
            raise TooLarge

    # What the parser calls.

    def on_url(self, url: bytes) -> None:
        """Take the next part of the target."""
        self._url += url
        if len(self._url) > LARGEST_HEAD:
            raise TooLarge

    def on_header(self, name: bytes, value: bytes) -> None:
        """Heed what concerns the transport."""
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if name.lower() == b"authorization":
            self._authorizations.append(value)
        if name.lower() == b"content-length" and int(value) > LARGEST_BODY:
            raise TooLarge

    def on_headers_complete(self) -> None:
        """Expect the body."""
        self._headed = True

    def on_body(self, body: bytes) -> None:
        """Take the next part of the body."""
        self._size += len(body)
        if self._size > LARGEST_BODY:
            raise TooLarge
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Find the answer."""
        if self._task:
            self._transport.abort()
            return
        if not self._parser.should_keep_alive():
            self._leaving = True
        told = self._authorizations
        question = Question(
            self._parser.get_method().decode("ascii", "replace"),
            self._url.partition(b"?")[0].decode("ascii", "replace"),
            told[0].decode("latin-1") if len(told) == 1 else "",
            b"".join(self._body),
        )
        self._task = asyncio.get_running_loop().create_task(self._answer(question))

    async def _answer(self, question: Question) -> None:
        try:
            answer = await self._answering(question)
        except Exception:  # noqa: BLE001  (logged, and the next request is not to blame)
            _LOG.exception("%s %s", question.method, question.path)
            answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"this is a bug; the log says more")
        self._task = None
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        self._leaving |= answer.last
        close = "Connection: close\r\n" if self._leaving else ""
        head = (
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
            f"Content-Type: {answer.type}\r\n"
            f"Content-Length: {len(answer.body)}\r\n{close}\r\n"
        )
        self._transport.write(head.encode() + answer.body)
        if self._leaving:
            self._limit(REQUEST_SECONDS)
            self._transport.close()
        else:
            self.answered, self.since = True, asyncio.get_running_loop().time()
            self._limit(IDLE_SECONDS)
            self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._body, self._authorizations = b"", list[bytes](), list[bytes]()
        self._size = self._arrived = 0
        self._headed, self.idle = False, True

    def _limit(self, seconds: float) -> None:
        self._timer.cancel()
        with suppress(RuntimeError):  # the loop has ended
            self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.abort)
