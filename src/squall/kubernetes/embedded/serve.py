"""The embedded API on a port, inside an event loop that belongs to somebody else."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from squall.kubernetes.embedded.asgi import KubernetesApi
from squall.kubernetes.embedded.objects import Objects
from squall.kubernetes.embedded.runtime import Runtime

_STOP_SECONDS = 2
"""How long requests in flight may take after a stop; watches end at once."""
_GOODBYE_SECONDS = 0.2
"""How long the last octets of an answer may take to leave."""
_QUIET_SECONDS = 75
"""How long an idle connection is kept; longer than clients wait before they use one again."""


class Server:
    """Serves one set of objects over TLS.

    Args:
        objects: the verbs, which the loopback of the same process uses too.
        token: what clients must show.
        tls: certificate and key.
        runtime: the containers behind the Pods.
    """

    def __init__(self, objects: Objects, token: str, tls: ssl.SSLContext, runtime: Runtime) -> None:
        self._api = KubernetesApi(objects, token, runtime)
        self._tls = tls
        self._server: _QuietServer | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; requests are answered when this returns.

        Args:
            host: name or address to listen on.
            port: 0 for one that is free.

        Returns:
            The port.

        Raises:
            OSError: the address cannot be listened on.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Named as TCP, so that asyncio turns Nagle off: answers waited 40 ms for a delayed ACK.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, port))
            listening.listen(128)
        except OSError as refused:
            listening.close()
            where = f"{host}:{port}: {refused.strerror}"
            raise OSError(
                refused.errno, f"cannot listen on {where}; name another address"
            ) from None
        self._server = _QuietServer(self._config())
        self._serving = asyncio.create_task(self._server.serve([listening]))
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait([self._serving, ready], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            self._serving.result()
        return int(listening.getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and end everything that is open; again changes nothing."""
        if self._server is None or self._serving is None:
            return
        self._api.stopping.set()
        self._server.leave.set()
        await self._serving
        self._server = None

    def _config(self) -> uvicorn.Config:
        tls = self._tls
        return uvicorn.Config(
            self._api,
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
            http="httptools",
            ws="websockets-sansio",
            timeout_keep_alive=_QUIET_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
            ssl_context_factory=lambda _config, _default: tls,
        )


class _QuietServer(uvicorn.Server):
    """Leaves signals to the owner of the loop, says when it is ready, and never polls."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready, self.leave = asyncio.Event(), asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        await self.on_tick(0)  # sets the headers of every answer
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End every connection, those too whose client does not say goodbye."""
        cutting = asyncio.create_task(self._cut_what_lingers())
        await super().shutdown(sockets)
        await cutting

    async def _cut_what_lingers(self) -> None:
        """Cut what has been answered: TLS waits long for clients that do not read."""
        if answering := list(self.server_state.tasks):
            await asyncio.wait(answering, timeout=_STOP_SECONDS)
        await asyncio.sleep(_GOODBYE_SECONDS)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def main_loop(self) -> None:
        """Wait for the end; the library's own loop wakes up ten times a second."""
        await self.leave.wait()
