"""The three kinds of qdiscs that shapes are built of, and their options as the kernel packs them.

pyroute2 0.9 knows no `prio`, the kernel refuses its netem `rate` (ERANGE), and it reads back less
than it writes.

Source: linux/pkt_sched.h; units as in the kernel: nanoseconds, bytes, and shares of 2**32 - 1.
"""

import struct
from dataclasses import dataclass
from typing import ClassVar, Self

from squall.linux.attributes import attribute, attributes

_ETHERNET = 1
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
                attribute(_CORRELATION, struct.pack("=3I", *self.correlations)),
                attribute(_REORDER, struct.pack("=2I", *self.reorder))
                if any(self.reorder)
                else b"",
                attribute(_CORRUPT, struct.pack("=2I", *self.corrupt)),
                attribute(_RATE, struct.pack("=IiIi", min(self.rate, _UINT32), 0, 0, 0)),
                attribute(_RATE64, struct.pack("=Q", self.rate)) if self.rate > _UINT32 else b"",
                attribute(_LATENCY64, struct.pack("=q", self.delay_ns)),
                attribute(_JITTER64, struct.pack("=q", self.jitter_ns)),
            )
        )

    @classmethod
    def decode(cls, options: bytes) -> Self:
        """Read what the kernel dumps."""
        _, limit, loss, gap, duplicate, _ = struct.unpack_from("=6I", options)
        more = dict(attributes(options[24:]))
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
            attribute(_PARAMETERS, parameters + struct.pack("=3I", self.limit, *ticks)),
            attribute(_TBF_RATE64, struct.pack("=Q", self.rate)) if self.rate > _UINT32 else b"",
            attribute(_BURST, struct.pack("=I", burst)),
        ]
        if self.peak_rate:
            big = self.peak_rate > _UINT32
            parts.append(attribute(_PEAK_RATE64, struct.pack("=Q", self.peak_rate)) if big else b"")
            parts.append(attribute(_PEAK_BURST, struct.pack("=I", peak)))
        return b"".join(parts)

    @classmethod
    def decode(cls, options: bytes) -> Self:
        """Read what the kernel dumps."""
        more = dict(attributes(options))
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
KINDS: dict[str, type[Netem] | type[TokenBucket] | type[Priorities]] = {
    "netem": Netem,
    "tbf": TokenBucket,
    "prio": Priorities,
}


def _speed(rate: int) -> bytes:
    """A struct tc_ratespec; Ethernet means that the kernel needs no table of transmission times."""
    return struct.pack("=BBHhHI", 0, _ETHERNET if rate else 0, 0, 0, 0, min(rate, _UINT32))
