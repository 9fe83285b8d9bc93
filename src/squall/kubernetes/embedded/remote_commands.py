"""`kubectl exec`: a command's streams over one WebSocket.

The first octet of every message names its channel. Source: Kubernetes' remotecommand protocols
`v4.channel.k8s.io` and `v5.channel.k8s.io` (which adds closing one channel).
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from squall.api.cluster import Object
from squall.kubernetes.embedded.container_logs import container_of
from squall.kubernetes.embedded.exchange import Query
from squall.kubernetes.embedded.runtime import Output, Runtime, Session
from squall.kubernetes.embedded.streams import until_first

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
NEEDS_WEBSOCKET = (
    "commands run over WebSocket here, and this client asked for SPDY; "
    "kubectl 1.31 and later use WebSocket by themselves"
)
_STDOUT, _STDERR, _STATUS = 1, 2, 3
_CHUNK_BYTES = 32 * 1024


def protocol_of(offered: Sequence[str]) -> str | None:
    """Choose a protocol that client and server know; None where there is none."""
    return next((protocol for protocol in PROTOCOLS if protocol in offered), None)


class RemoteCommand:
    """One command in a container, on behalf of one WebSocket."""

    def __init__(self, runtime: Runtime, pod: Object, query: Query) -> None:
        self._runtime, self._pod = runtime, pod
        self._container = container_of(pod, query.text("container"))
        self._command = query.texts("command")
        self._stdin, self._tty = query.flag("stdin"), query.flag("tty")

    async def start(self) -> Session:
        """Start the command.

        Raises:
            ApiError: 400, the container does not run, or no such command.
        """
        return await self._runtime.start(
            self._pod, self._container, self._command, stdin=self._stdin, tty=self._tty
        )

    async def serve(self, socket: WebSocket, session: Session, stopping: asyncio.Event) -> None:
        """Carry streams to and fro until the command, the client or the server ends."""
        try:
            await until_first(
                self._to_client(socket, session),
                self._from_client(socket, session),
                stopping.wait(),
            )
        except (WebSocketDisconnect, RuntimeError):  # the client left while we were sending
            pass
        finally:
            session.kill()

    async def _to_client(self, socket: WebSocket, session: Session) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(session.stdout, _STDOUT, socket))
            if session.stderr is not None:
                group.create_task(_pump(session.stderr, _STDERR, socket))
        status = orjson.dumps(_exit_status(await session.wait()))
        await socket.send_bytes(bytes([_STATUS]) + status)
        await socket.close()

    async def _from_client(self, socket: WebSocket, session: Session) -> None:
        """Read until the client leaves; the end of its input is not its leaving."""
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            octets: bytes = message.get("bytes") or (message.get("text") or "").encode()
            match octets[:1]:
                case b"\x00" if session.stdin is not None:
                    session.stdin.write(octets[1:])
                    await session.stdin.drain()
                case b"\x04":
                    _resize(session, octets[1:])
                case b"\xff" if octets[1:2] == b"\x00" and session.stdin is not None:
                    session.stdin.close()


async def _pump(source: Output, channel: int, socket: WebSocket) -> None:
    while octets := await source.read(_CHUNK_BYTES):
        await socket.send_bytes(bytes([channel]) + octets)


def _resize(session: Session, octets: bytes) -> None:
    try:
        size = orjson.loads(octets)
        session.resize(int(size["Width"]), int(size["Height"]))
    except (ValueError, KeyError, TypeError):
        return  # a size that cannot be read is not worth ending a session for


def _exit_status(code: int) -> dict[str, Any]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
