"""Queueing disciplines over netlink: the three kinds that shapes are built of.

Messages are packed here: pyroute2 0.9 knows no `prio`, the kernel refuses its netem `rate`
(ERANGE), and it reads back less than it writes.

Source: linux/pkt_sched.h, linux/rtnetlink.h; units as in the kernel: nanoseconds, bytes, and
shares of 2**32 - 1.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from squall.errors import SquallError, TryAgain, Unsupported

ROOT = 0xFFFFFFFF
"""Parent of the qdisc that a device sends through."""

_NEW, _DELETE, _GET = 36, 37, 38
_REQUEST, _ACK, _DUMP, _REPLACE, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x400
_ERROR, _DONE = 2, 3
_KIND, _OPTIONS, _STATS2 = 1, 2, 7
_BASIC_STATS, _QUEUE_STATS = 1, 3
_ETHERNET = 1
_SOL_NETLINK, _EXT_ACK = 270, 11
_MESSAGE_OF_ERROR = 1
_ACK_TLVS, _CAPPED = 0x200, 0x100
_LONGEST_ANSWER = 1 << 18
_TICK_NS = 64
_UINT32 = 0xFFFFFFFF

# Attributes of netem, and of tbf.
_CORRELATION, _REORDER, _CORRUPT, _RATE, _RATE64, _LATENCY64, _JITTER64 = 1, 3, 4, 6, 8, 10, 11
_PARAMETERS, _TBF_RATE64, _PEAK_RATE64, _BURST, _PEAK_BURST = 1, 4, 5, 6, 7


@dataclass(frozen=True, slots=True)
class Netem:
    """tc-netem(8)."""

    kind: ClassVar = "netem"
    delay_ns: int = 0
    jitter_ns: int = 0
    limit: int = 0
    """Packets that may be held."""
    loss: int = 0
    gap: int = 0
    duplicate: int = 0
    correlations: tuple[int, int, int] = (0, 0, 0)
    """Of delay, loss and duplicate."""
    reorder: tuple[int, int] = (0, 0)
    """Share, correlation."""
    corrupt: tuple[int, int] = (0, 0)
    """Share, correlation."""
    rate: int = 0
    """Bytes per second."""

    def encode(self) -> bytes:
        """Pack the options."""
        head = struct.pack(
            "=6I",
            min(self.delay_ns // _TICK_NS, _UINT32),
            self.limit,
            self.loss,
            self.gap,
            self.duplicate,
            min(self.jitter_ns // _TICK_NS, _UINT32),
        )
        return b"".join(
            (
                head,
                _attribute(_CORRELATION, struct.pack("=3I", *self.correlations)),
                _attribute(_REORDER, struct.pack("=2I", *self.reorder))
                if any(self.reorder)
                else b"",
                _attribute(_CORRUPT, struct.pack("=2I", *self.corrupt)),
                _attribute(_RATE, struct.pack("=IiIi", min(self.rate, _UINT32), 0, 0, 0)),
                _attribute(_RATE64, struct.pack("=Q", self.rate)) if self.rate > _UINT32 else b"",
                _attribute(_LATENCY64, struct.pack("=q", self.delay_ns)),
                _attribute(_JITTER64, struct.pack("=q", self.jitter_ns)),
            )
        )

    @classmethod
    def decode(cls, options: bytes) -> Self:
        """Read what the kernel dumps."""
        _, limit, loss, gap, duplicate, _ = struct.unpack_from("=6I", options)
        more = dict(_attributes(options[24:]))
        rate = struct.unpack_from("=I", more[_RATE])[0] if _RATE in more else 0
        return cls(
            delay_ns=struct.unpack("=q", more[_LATENCY64])[0],
            jitter_ns=struct.unpack("=q", more[_JITTER64])[0],
            limit=limit,
            loss=loss,
            gap=gap,
            duplicate=duplicate,
            correlations=struct.unpack_from("=3I", more[_CORRELATION]),
            reorder=struct.unpack_from("=2I", more[_REORDER]),
            corrupt=struct.unpack_from("=2I", more[_CORRUPT]),
            rate=struct.unpack("=Q", more[_RATE64])[0] if _RATE64 in more else rate,
        )


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """tc-tbf(8)."""

    kind: ClassVar = "tbf"
    rate: int = 0
    burst_ns: int = 0
    """Time that the whole bucket is worth at `rate`; as exact as a tick of 64 ns."""
    limit: int = 0
    """Bytes that may wait."""
    peak_rate: int = 0
    peak_burst_ns: int = 0

    def encode(self) -> bytes:
        """Pack the options."""
        burst = -(-self.burst_ns * self.rate // 10**9)
        peak = -(-self.peak_burst_ns * self.peak_rate // 10**9)
        ticks = [min(ns // _TICK_NS, _UINT32) for ns in (self.burst_ns, self.peak_burst_ns)]
        parameters = _speed(self.rate) + _speed(self.peak_rate)
        parts = [
            _attribute(_PARAMETERS, parameters + struct.pack("=3I", self.limit, *ticks)),
            _attribute(_TBF_RATE64, struct.pack("=Q", self.rate)) if self.rate > _UINT32 else b"",
            _attribute(_BURST, struct.pack("=I", burst)),
        ]
        if self.peak_rate:
            big = self.peak_rate > _UINT32
            parts.append(
                _attribute(_PEAK_RATE64, struct.pack("=Q", self.peak_rate)) if big else b""
            )
            parts.append(_attribute(_PEAK_BURST, struct.pack("=I", peak)))
        return b"".join(parts)

    @classmethod
    def decode(cls, options: bytes) -> Self:
        """Read what the kernel dumps."""
        more = dict(_attributes(options))
        limit, buffer, mtu = struct.unpack_from("=3I", more[_PARAMETERS], 24)
        rate, peak = (struct.unpack_from("=8xI", more[_PARAMETERS], at)[0] for at in (0, 12))
        return cls(
            rate=struct.unpack("=Q", more[_TBF_RATE64])[0] if _TBF_RATE64 in more else rate,
            burst_ns=buffer * _TICK_NS,
            limit=limit,
            peak_rate=struct.unpack("=Q", more[_PEAK_RATE64])[0] if _PEAK_RATE64 in more else peak,
            peak_burst_ns=mtu * _TICK_NS if peak else 0,
        )


@dataclass(frozen=True, slots=True)
class Priorities:
    """tc-prio(8) with every packet in the first band, unless its priority names a class."""

    kind: ClassVar = "prio"
    bands: int = 16

    def encode(self) -> bytes:
        """Pack the options."""
        return struct.pack("=i16B", self.bands, *(0,) * 16)

    @classmethod
    def decode(cls, options: bytes) -> Self:
        """Read what the kernel dumps."""
        return cls(struct.unpack_from("=i", options)[0])


Discipline = Netem | TokenBucket | Priorities
_KINDS: dict[str, type[Netem] | type[TokenBucket] | type[Priorities]] = {
    "netem": Netem,
    "tbf": TokenBucket,
    "prio": Priorities,
}


@dataclass(frozen=True, slots=True)
class Qdisc:
    """One qdisc as the kernel has it."""

    device: int
    """Its number."""
    handle: int
    """`major:0`; 0 for what the kernel put there by itself."""
    parent: int
    kind: str
    discipline: Discipline | None
    """None for other kinds."""
    packets: int
    """Sent on since it was made."""
    bytes: int
    dropped: int


class TrafficControl:
    """A netlink socket in the namespace of the thread that made it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._socket.settimeout(5.0)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def qdiscs(self) -> list[Qdisc]:
        """List the qdiscs of every device."""
        return [_qdisc(body) for body in self._ask(_GET, _DUMP, struct.pack("=20x"))]

    def put(self, device: int, handle: int, parent: int, discipline: Discipline) -> None:
        """Make a qdisc, or change the one with this handle, which must be of the same kind.

        Raises:
            Unsupported: the kernel has no such qdisc, or refuses these options.
            TryAgain: anything else.
        """
        head = struct.pack("=BxxxiIII", socket.AF_UNSPEC, device, handle, parent, 0)
        kind = _attribute(_KIND, discipline.kind.encode() + b"\0")
        try:
            self._ask(
                _NEW,
                _ACK | _CREATE | _REPLACE,
                head + kind + _attribute(_OPTIONS, discipline.encode()),
            )
        except OSError as failure:
            raise _refusal(failure, discipline.kind) from failure

    def delete(self, device: int, handle: int, parent: int) -> None:
        """Remove a qdisc with all below it; one that is not there is fine."""
        head = struct.pack("=BxxxiIII", socket.AF_UNSPEC, device, handle, parent, 0)
        try:
            self._ask(_DELETE, _ACK, head)
        except OSError as failure:
            if failure.errno not in {errno.ENOENT, errno.EINVAL, errno.ENODEV}:
                raise TryAgain(f"removing a qdisc: {failure}") from failure

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        self._sequence += 1
        length = 16 + len(body)
        head = struct.pack("=IHHII", length, kind, flags | _REQUEST, self._sequence, 0)
        self._socket.send(head + body)
        answers: list[bytes] = []
        while True:
            received = self._socket.recv(_LONGEST_ANSWER)
            while received:
                size, answer, bits, sequence, _ = struct.unpack_from("=IHHII", received)
                body, received = received[16:size], received[(size + 3) & ~3 :]
                if sequence != self._sequence:
                    continue
                if answer == _ERROR:
                    _raise(body, bits)
                if answer in {_ERROR, _DONE}:
                    return answers
                answers.append(body)


def _raise(body: bytes, flags: int) -> None:
    """Raise what an acknowledgement says; nothing where it says that all is well."""
    code = -struct.unpack_from("=i", body)[0]
    if not code:
        return
    message = os.strerror(code)
    if flags & _ACK_TLVS:
        asked = 16 if flags & _CAPPED else struct.unpack_from("=I", body, 4)[0]
        more = dict(_attributes(body[4 + asked :]))
        message = more.get(_MESSAGE_OF_ERROR, message.encode()).rstrip(b"\0").decode()
    raise OSError(code, message)


def _refusal(failure: OSError, kind: str) -> SquallError:
    if failure.errno == errno.ENOENT:
        return Unsupported(f"this kernel has no qdisc {kind}; load the module sch_{kind}")
    if failure.errno in {errno.EINVAL, errno.ERANGE, errno.EOPNOTSUPP}:
        return Unsupported(f"this kernel refuses the qdisc {kind}: {failure.strerror}")
    return TryAgain(f"qdisc {kind}: {failure.strerror}")


def _qdisc(body: bytes) -> Qdisc:
    _, device, handle, parent, _ = struct.unpack_from("=BxxxiIII", body)
    more = dict(_attributes(body[20:]))
    stats = dict(_attributes(more.get(_STATS2, b"")))
    size, packets = struct.unpack_from("=QI", stats.get(_BASIC_STATS, bytes(12)))
    dropped = struct.unpack_from("=8xI", stats.get(_QUEUE_STATS, bytes(12)))[0]
    kind = more[_KIND].rstrip(b"\0").decode()
    known = _KINDS.get(kind)
    options = more.get(_OPTIONS)
    discipline = known.decode(options) if known and options else None
    return Qdisc(device, handle, parent, kind, discipline, packets, size, dropped)


def _speed(rate: int) -> bytes:
    """A struct tc_ratespec; Ethernet means that the kernel needs no table of transmission times."""
    return struct.pack("=BBHhHI", 0, _ETHERNET if rate else 0, 0, 0, 0, min(rate, _UINT32))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def _attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    while len(body) >= 4:  # noqa: PLR2004  (the header)
        size, kind = struct.unpack_from("=HH", body)
        yield kind & 0x3FFF, body[4:size]
        body = body[(size + 3) & ~3 :]
