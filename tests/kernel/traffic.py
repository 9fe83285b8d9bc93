"""Numbered packets from the target to its peer, and what became of them."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from squall.linux.tests.conftest import FAR, PORT, Cables

SILENCE_SECONDS = 0.4
BURST = 20


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What the peer got, in order of arrival."""

    sent: int
    packets: Sequence[bytes]
    size: int
    seconds: float
    """From the first that was sent to the last that arrived."""

    @property
    def intact(self) -> list[int]:
        """Numbers of the packets that are as they were sent."""
        size = self.size
        return [int.from_bytes(p[:4]) for p in self.packets if p[4:] == bytes(size - 4)]

    @property
    def bytes_per_second(self) -> float:
        """Speed with the headers of Ethernet, IPv4 and UDP."""
        return len(self.packets) * (self.size + 42) / self.seconds


async def send(
    cables: Cables, version: int, count: int, *, size: int = 64, pause_seconds: float = 0.002
) -> Arrivals:
    """Send so many packets over UDP, some at a time, and wait until no more arrive."""
    loop = asyncio.get_running_loop()
    sender = await cables.open(cables.target, socket.SOCK_DGRAM, version)
    receiver = await cables.open(cables.peer, socket.SOCK_DGRAM, version)
    with sender, receiver:
        for one in (sender, receiver):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        receiver.bind(("", PORT))
        began = last = loop.time()
        got: list[bytes] = []

        async def collect() -> None:
            nonlocal last
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    got.append(await loop.sock_recv(receiver, 4096))
                last = loop.time()

        collecting = asyncio.ensure_future(collect())
        for number in range(count):
            await loop.sock_sendto(
                sender, number.to_bytes(4) + bytes(size - 4), (FAR[version], PORT)
            )
            if number % BURST == BURST - 1:
                await asyncio.sleep(pause_seconds)
        await asyncio.wait([collecting])
        assert isinstance(collecting.exception(), TimeoutError)
    return Arrivals(count, got, size, last - began)
