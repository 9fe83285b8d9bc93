"""ICMP echo from inside a network namespace."""

import asyncio
import secrets
import socket
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address

from squall.injection.world.network import Ping
from squall.linux.namespaces import Namespace, inside

_REQUEST = {4: 8, 6: 128}
_REPLY = {4: 0, 6: 129}
_SOL_RAW = 255
_ICMP_FILTER = 1
"""Socket option of raw(7): a mask of the types that are not wanted."""
_ICMP6_FILTER = 1

SHORTEST_PAUSE_SECONDS = 0.001
"""What an event loop can sleep; pings that have less time go out at once."""


@dataclass(slots=True)
class _Tally:
    """What came of the requests so far."""

    token: bytes
    """Random; tells our replies from those of others."""
    sent: dict[int, float] = field(default_factory=dict)
    """Moment of sending, by sequence number."""
    refused: int = 0
    unsendable: int = 0
    rtt_ms: list[float] = field(default_factory=list)
    duplicates: int = 0
    _seen: set[int] = field(default_factory=set)

    def reply(self, sequence: int, at: float) -> None:
        if sequence in self._seen:
            self.duplicates += 1
        elif sequence in self.sent:
            self._seen.add(sequence)
            self.rtt_ms.append((at - self.sent[sequence]) * 1000)


async def ping(namespace: Namespace, address: str, *, count: int, within_seconds: float) -> Ping:
    """Send `count` echo requests, spread over half of the time, and collect the replies.

    With less than a millisecond for each they are sent together.

    Returns once every reply is there, or when the time is over.

    Raises:
        TargetGone: the namespace is gone.
        ValueError: `address` is no IP address.
    """
    version = ip_address(address).version
    tally = _Tally(secrets.token_bytes(8))
    with await inside(namespace, lambda: _socket(version)) as raw:
        loop = asyncio.get_running_loop()
        receiving = asyncio.ensure_future(_receive(raw, version, tally, count))
        ends = loop.time() + within_seconds
        pause = min(0.01, within_seconds / 2 / count)
        try:
            for sequence in range(count):
                tally.sent[sequence] = loop.time()
                packet = _request(version, sequence, tally.token)
                try:
                    await loop.sock_sendto(raw, packet, (address, 0))
                except PermissionError:  # EPERM: the mark of a cut
                    tally.refused += 1
                    del tally.sent[sequence]
                except OSError:  # no route to the host: that says nothing about any fault
                    tally.unsendable += 1
                    del tally.sent[sequence]
                if sequence + 1 < count and pause >= SHORTEST_PAUSE_SECONDS:
                    await asyncio.sleep(pause)
            if tally.sent:
                await asyncio.wait([receiving], timeout=max(0.0, ends - loop.time()))
        finally:
            receiving.cancel()
            await asyncio.wait([receiving])
    return Ping(
        sent=count - tally.unsendable,
        received=len(tally.rtt_ms),
        refused=tally.refused,
        rtt_ms=tuple(tally.rtt_ms),
        duplicates=tally.duplicates,
    )


def _socket(version: int) -> socket.socket:
    if version == 4:  # noqa: PLR2004  (the protocol's number)
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        raw.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << _REPLY[4]) & 0xFFFFFFFF))
    else:
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        blocked = [0xFFFFFFFF] * 8
        blocked[_REPLY[6] // 32] &= ~(1 << _REPLY[6] % 32)
        raw.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocked))
    raw.setblocking(False)
    return raw


def _request(version: int, sequence: int, token: bytes) -> bytes:
    identifier = int.from_bytes(token[:2])
    head = struct.pack("!BBHHH", _REQUEST[version], 0, 0, identifier, sequence)
    packet = head + token
    if version == 4:  # noqa: PLR2004  (of IPv6 the kernel writes the checksum)
        packet = packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:]
    return packet


def _checksum(packet: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


async def _receive(raw: socket.socket, version: int, tally: _Tally, count: int) -> None:
    """Collect until every request that went out has its reply; duplicates come on the way."""
    loop = asyncio.get_running_loop()
    while len(tally.rtt_ms) + tally.refused + tally.unsendable < count:
        packet = await loop.sock_recv(raw, 2048)
        at = loop.time()
        if version == 4:  # noqa: PLR2004
            packet = packet[(packet[0] & 0xF) * 4 :]
        if len(packet) >= 16 and packet[8:16] == tally.token and packet[0] == _REPLY[version]:  # noqa: PLR2004
            tally.reply(struct.unpack_from("!H", packet, 6)[0], at)
