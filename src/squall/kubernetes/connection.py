"""One HTTP connection pool to one API server: raw requests, and errors by what to do next."""

import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Self

import httpx2
import orjson

from squall.api.cluster import (
    AlreadyExists,
    ApiError,
    Conflict,
    NotFound,
    Object,
    Unreachable,
)
from squall.kubernetes.server import Server

if TYPE_CHECKING:  # costs an import of wsproto, which only `exec` needs
    from httpx2.websockets import AsyncWebSocketSession

TIMEOUT_SECONDS = 10.0
"""For each of: connecting, sending, waiting for the next bytes of an answer."""

KEPT_SECONDS = 75.0
"""How long a connection that nobody uses is kept, since a new one costs a TLS handshake: longer
than the pause between two renewals of a lease, and less than API servers keep it."""

_KEEPALIVE = [
    # A cut path shows as silence. On a quiet watch the kernel's probes notice it in 10 + 3 * 5 s.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
]

Query = Mapping[str, str | list[str]]


class Connection:
    """Sends requests with the certificates and credentials for one API server.

    Environment variables for proxies and certificates are not heeded: a laptop's proxy must not
    come between it and the API server in its own kubeconfig.
    """

    def __init__(self, server: Server) -> None:
        self.server = server.url
        self._http = httpx2.AsyncClient(
            base_url=self.server,
            auth=server.auth,
            headers={"User-Agent": "squall", "Accept": "application/json"},
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
            transport=httpx2.AsyncHTTPTransport(
                verify=server.tls(),
                limits=httpx2.Limits(
                    max_connections=None,
                    max_keepalive_connections=20,
                    keepalive_expiry=KEPT_SECONDS,
                ),
                socket_options=_KEEPALIVE,
            ),
        )

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send one request and return the decoded answer.

        Raises:
            ApiError: the server refused, or is none, or (`Unreachable`) did not answer.
        """
        content = None if body is None else orjson.dumps(body)
        headers = None if body is None else {"Content-Type": content_type}
        with self._translated(f"{method} {path}"):
            response = await self._http.request(
                method, path, params=query, content=content, headers=headers
            )
        if response.is_error:
            raise _refusal(response)
        try:
            answer: Object = orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            message = f"{method} {path}: {self.server} is no Kubernetes API; it does not speak JSON"
            raise ApiError(response.status_code, "NotJSON", message) from error
        return answer

    async def lines(self, path: str, query: Query, quiet_seconds: float) -> AsyncIterator[bytes]:
        """Stream the lines of an answer; ends when the server ends it.

        Args:
            path: below the server's address.
            query: parameters of the request.
            quiet_seconds: how long the server may say nothing before it counts as gone.

        Raises:
            ApiError: the server refused, or (`Unreachable`) the stream broke.
        """
        timeout = httpx2.Timeout(TIMEOUT_SECONDS, read=quiet_seconds)
        with self._translated(f"GET {path}"):
            async with self._http.stream("GET", path, params=query, timeout=timeout) as response:
                if response.is_error:
                    await response.aread()
                    raise _refusal(response)
                rest = b""
                async for chunk in response.aiter_bytes():
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line

    def websocket(
        self, path: str, query: Query, protocol: str
    ) -> AbstractAsyncContextManager["AsyncWebSocketSession"]:
        """Open a WebSocket; errors are those of `httpx2.websockets`, untranslated."""
        return self._http.websocket(path, params=query, subprotocols=[protocol])

    async def aclose(self) -> None:
        """Close every connection; streams that are open end with `Unreachable`."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @contextmanager
    def _translated(self, asked: str) -> Iterator[None]:
        try:
            yield
        except httpx2.TransportError as error:
            why = str(error) or type(error).__name__
            message = f"{asked}: {self.server} does not answer ({why}); is the API server running?"
            raise Unreachable(0, "Unreachable", message) from error


def refusal(status: Mapping[str, Any]) -> ApiError:
    """Turn a `Status` object into the error that says what to do next."""
    code = int(status.get("code") or 500)
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or f"the API server answered {code} {reason}")
    error = ApiError
    if code == httpx2.codes.NOT_FOUND:
        error = NotFound
    elif code == httpx2.codes.CONFLICT:
        error = AlreadyExists if reason == "AlreadyExists" else Conflict
    return error(code, reason, message, status.get("details"))


def _refusal(response: httpx2.Response) -> ApiError:
    """Read a refusal; whatever stands before the API server may answer with other than JSON."""
    try:
        status = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        status = {"message": response.text[:500].strip()}
    return refusal({**status, "code": response.status_code})
