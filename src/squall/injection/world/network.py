"""What an injector may do to the network of a target, and measure in it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Literal, Protocol

from squall.injection.world.target import Target


@dataclass(frozen=True, slots=True, order=True)
class Peers:
    """The other end of a path."""

    cidr: str
    """Canonical IPv4 or IPv6 network, as `10.0.0.7/32`."""
    port: int = 0
    """The peer's own port: destination of what leaves, source of what arrives; 0 means any."""


def canonical(peers: Iterable[Peers]) -> tuple[Peers, ...]:
    """Sort peers, and join networks that overlap or touch, port by port.

    Raises:
        ValueError: a CIDR that is none.
    """
    by_port: dict[int, list[IPv4Network | IPv6Network]] = {}
    for peer in peers:
        by_port.setdefault(peer.port, []).append(ip_network(peer.cidr))
    joined: list[Peers] = []
    for port, networks in by_port.items():
        four = collapse_addresses(n for n in networks if isinstance(n, IPv4Network))
        six = collapse_addresses(n for n in networks if isinstance(n, IPv6Network))
        joined += (Peers(str(network), port) for network in (*four, *six))
    return tuple(sorted(joined))


@dataclass(frozen=True, slots=True)
class Cut:
    """Packets that are dropped; the sender of a cut packet is told at once (EPERM)."""

    source: str
    """Which live fault asked for it; names its counter."""
    way: Literal["in", "out"]
    peers: tuple[Peers, ...] | None
    """None cuts everything on the device."""
    device: str = ""
    """Empty means every device but loopback."""


@dataclass(frozen=True, slots=True)
class Impairment:
    """What happens to packets that leave; tc-netem(8) semantics. Zero means: does not."""

    delay_us: int = 0
    jitter_us: int = 0
    delay_correlation: float = 0.0
    """Percent, as every probability and correlation here."""
    loss: float = 0.0
    loss_correlation: float = 0.0
    duplicate: float = 0.0
    duplicate_correlation: float = 0.0
    corrupt: float = 0.0
    corrupt_correlation: float = 0.0
    reorder: float = 0.0
    reorder_correlation: float = 0.0
    reorder_gap: int = 0
    rate: int = 0
    """Bytes per second of netem's `rate`, an ideal serial line."""
    bandwidth_rate: int = 0
    """Bytes per second of a token bucket (tc-tbf(8))."""
    bandwidth_buffer: int = 0
    """Bytes of the bucket."""
    bandwidth_limit: int = 0
    """Bytes that may wait for tokens."""
    bandwidth_peakrate: int = 0
    bandwidth_minburst: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """Packets that leave towards `peers` are impaired.

    A packet that several shapes match passes through each of them, in order.
    """

    source: str
    peers: tuple[Peers, ...] | None
    """None shapes everything that leaves the device."""
    impairment: Impairment
    device: str = ""
    """Empty means the device of the default route, or the first that is not loopback."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What the means did for one source since it was put there; None: it does not count that."""

    packets: int = 0
    """Packets that matched."""
    delayed: int | None = 0
    dropped: int | None = 0
    duplicated: int | None = 0
    corrupted: int | None = 0
    reordered: int | None = 0
    delay_us_sum: int | None = 0
    """Time that delayed packets were held, summed: mean delay = delay_us_sum / delayed."""
    bytes: int | None = None
    """Of the packets that were let through, headers included."""

    def __add__(self, other: "Counters") -> "Counters":
        """Count for several means of one source; what one of them does not count is unknown."""
        pairs = zip(astuple(self)[1:], astuple(other)[1:], strict=True)
        counts = (None if a is None or b is None else a + b for a, b in pairs)
        return Counters(self.packets + other.packets, *counts)


@dataclass(frozen=True, slots=True)
class NetworkState:
    """Everything of ours that is in force in one network namespace.

    What order says nothing about is sorted when it is made, so that equal states compare equal:
    cuts, and shapes of different devices.
    """

    cuts: tuple[Cut, ...] = ()
    """At most one for each source, way and device."""
    shapes: tuple[Shape, ...] = ()

    def __post_init__(self) -> None:
        cuts = sorted(self.cuts, key=lambda cut: (cut.source, cut.way, cut.device))
        shapes = sorted(self.shapes, key=lambda shape: shape.device)
        object.__setattr__(self, "cuts", tuple(cuts))
        object.__setattr__(self, "shapes", tuple(shapes))


@dataclass(frozen=True, slots=True)
class Ping:
    """Result of a few probes towards one address, sent from inside the target."""

    sent: int
    """Tried, but for those that found no route."""
    received: int
    refused: int = 0
    """Sends that failed at once with EPERM: the mark of a cut on the way out."""
    rtt_ms: tuple[float, ...] = field(default=())
    """One for each reply, in order of arrival."""
    duplicates: int = 0
    """Further replies to the same request."""


class Network(Protocol):
    """The network namespace of a target; foreign rules and qdiscs are never touched."""

    async def state(self, target: Target) -> NetworkState:
        """Read what of ours is in force, by our mark and from the kernel, not from memory."""

    async def apply(self, target: Target, wanted: NetworkState) -> None:
        """Make exactly `wanted` be in force; an empty state leaves nothing of ours behind.

        Atomic for cuts. Packets in flight of an unchanged shape are not lost.
        """

    async def counters(self, target: Target) -> Mapping[str, Counters]:
        """Read counters by source; a source that is not in force is absent."""

    async def ping(
        self, target: Target, address: str, *, count: int, within_seconds: float
    ) -> Ping:
        """Probe an address from inside the target (ICMP echo); ends after `within_seconds`."""

    async def addresses(self, target: Target) -> frozenset[str]:
        """List the target's own addresses: what it sends there never leaves it."""

    async def gateway(self, target: Target, device: str = "") -> str | None:
        """Tell the router of its default route, IPv4 first; None where there is none.

        `device`: only a route that leaves by it counts; empty means any.
        """

    async def resolve(self, target: Target, name: str) -> Sequence[str]:
        """Look a host name up as the target would; every IPv4 and IPv6 address, or none."""
