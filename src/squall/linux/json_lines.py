"""The way Python speaks to a `squall-node` process: JSON lines over its Unix socket."""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

from squall.errors import InvalidFault, SquallError, TryAgain, Unsupported

ANSWER_SECONDS = 5.0
"""For one answer. The longest is a large nft transaction, some tens of milliseconds."""

LONGEST_ANSWER = 64 * 1024 * 1024
"""Bytes; a list of many thousand rules is a few megabytes."""

_ERRORS: Mapping[str, type[SquallError]] = {
    "InvalidFault": InvalidFault,
    "TryAgain": TryAgain,
    "Unsupported": Unsupported,
}


class Connection(asyncio.Protocol):
    """Numbered requests, one answer each; calls may overlap."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        """Set when the connection is lost, by whomever."""
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._asked = 0

    @classmethod
    async def open(cls, path: Path) -> Self | None:
        """Connect; None when nobody listens at `path`."""
        try:
            _, connection = await asyncio.get_running_loop().create_unix_connection(cls, str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        return connection

    @property
    def pid(self) -> int:
        """Process id of the one who listens, in our PID namespace."""
        credentials = struct.Struct("3i")  # pid, uid, gid
        connected = cast("asyncio.Transport", self._transport).get_extra_info("socket")
        peer = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
        pid: int = credentials.unpack(peer)[0]
        return pid

    async def ask(self, verb: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises:
            InvalidFault, Unsupported, TryAgain: as the process says.
            TryAgain: also when it is gone, or does not answer in time.
        """
        if self._transport is None or self.gone.is_set():
            raise TryAgain(f"squall-node is gone, so it cannot {verb}")
        self._asked += 1
        number = self._asked
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        line = json.dumps({"id": number, "do": verb, **(request or {})})
        self._transport.write(line.encode() + b"\n")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                received: dict[str, Any] = await answer
        except TimeoutError:
            raise TryAgain(f"squall-node: no answer to {verb} in {ANSWER_SECONDS} s") from None
        finally:
            self._waiting.pop(number, None)
        if "error" in received:
            error = received["error"]
            raise _ERRORS.get(error["kind"], TryAgain)(error["message"])
        ok: dict[str, Any] = received["ok"]
        return ok

    def close(self) -> None:
        """Drop the connection; what waits for an answer gets TryAgain."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio)."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand each whole line to the one who waits for it (asyncio)."""
        self._received += data
        if len(self._received) > LONGEST_ANSWER:
            self.close()
        while (end := self._received.find(b"\n")) >= 0:
            answer = json.loads(self._received[:end])
            del self._received[: end + 1]
            waiting = self._waiting.get(answer["id"])
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who wait (asyncio)."""
        self.gone.set()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(TryAgain("squall-node ended before it answered"))
