"""NetworkChaos: what may be asked, and what each role of an experiment gets of it."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from squall.api.experiment import MAIN, TARGET, ExperimentSpec
from squall.api.selector import PodSelector
from squall.api.units import ByteRate, Int32, Int64, Percentage, TcDuration
from squall.api.wire import Fault, Flaw, Wire, written
from squall.faults.network.endpoint import Endpoint, endpoint
from squall.injection.kind import Peers
from squall.injection.world.network import Impairment

Action = Literal["netem", "delay", "loss", "duplicate", "corrupt", "partition", "bandwidth"]
Device = Annotated[str, AfterValidator(lambda name: name.partition("@")[0])]
"""Name of a device; `eth0@if5`, as `ip link` prints it, means eth0."""


class Reorder(Wire):
    """Let some packets overtake those that are delayed."""

    reorder: Percentage
    """Percent of packets that are sent at once."""
    correlation: Percentage = written("0")
    """Percent by which each draw follows the one before."""
    gap: int
    """Only every so many packets one may overtake; 0 or 1 means any."""


class Delay(Wire):
    """Hold packets back."""

    latency: TcDuration
    """How long each packet is held, as `10ms`."""
    jitter: TcDuration = written("0ms")
    """How far the time may be off, in both directions."""
    correlation: Percentage = written("0")
    """Percent by which each packet's jitter follows that of the one before."""
    reorder: Reorder | None = None
    """Packets that are not held."""


class Loss(Wire):
    """Drop packets without a word."""

    loss: Percentage
    """Percent of packets that are lost."""
    correlation: Percentage = written("0")
    """Percent by which each draw follows the one before."""


class Duplicate(Wire):
    """Send packets twice."""

    duplicate: Percentage
    """Percent of packets that are sent twice."""
    correlation: Percentage = written("0")
    """Percent by which each draw follows the one before."""


class Corrupt(Wire):
    """Flip one bit in packets."""

    corrupt: Percentage
    """Percent of packets that are damaged."""
    correlation: Percentage = written("0")
    """Percent by which each draw follows the one before."""


class Rate(Wire):
    """Send as over a slower line: each packet takes its time, however long the queue."""

    rate: ByteRate
    """Speed of the line in tc notation: `1mbit` is a megabit, `1mbps` a megabyte per second."""


class Bandwidth(Wire):
    """A token bucket: `rate` in the long run, `buffer` all at once."""

    rate: ByteRate
    """What may leave in tc notation: `1mbit` is a megabit, `1mbps` a megabyte per second."""
    limit: Annotated[Int32, Field(ge=1)]
    """Bytes that may wait for tokens; what comes after is dropped."""
    buffer: Annotated[Int32, Field(ge=1)]
    """Bytes that may leave in one burst. Below the size of a packet, nothing passes."""
    peakrate: Annotated[Int64, Field(ge=0)] | None = None
    """Bytes per second at which the bucket may be emptied; only together with `minburst`."""
    minburst: Annotated[Int32, Field(ge=0)] | None = None
    """Bytes of the second bucket, which holds to `peakrate`; at least the size of a packet."""


class NetworkChaosSpec(ExperimentSpec):
    """Slow down, lose, damage or cut what pods send each other."""

    action: Action
    """What is done. `partition` cuts and `bandwidth` limits; each of the others does everything
    that is given under `delay`, `loss`, `duplicate`, `corrupt` and `rate`."""
    device: Device = ""
    """Network device of the selected pods; by default the one their packets leave by."""
    delay: Delay | None = None
    """Hold packets back."""
    loss: Loss | None = None
    """Drop packets without a word."""
    duplicate: Duplicate | None = None
    """Send packets twice."""
    corrupt: Corrupt | None = None
    """Flip one bit in packets."""
    rate: Rate | None = None
    """Send as over a slower line."""
    bandwidth: Bandwidth | None = None
    """Limit what leaves, for action `bandwidth`."""
    direction: Literal["to", "from", "both"] = written("to")
    """Which packets are hit: those that the selected pods send (`to`), those that are sent to them
    (`from`), or both."""
    target: PodSelector | None = None
    """Pods at the other end; without it and `externalTargets`, every packet is hit."""
    target_device: Device = ""
    """Network device of the pods in `target`."""
    external_targets: list[str] | None = None
    """Addresses, CIDRs and host names at the other end, each with a port if wanted, as
    `10.0.0.0/8`, `example.org` and `example.org:443`; names are looked up again and again."""

    def selectors(self) -> Mapping[str, PodSelector]:
        """The main selector, and that of `target` where there is one."""
        return {MAIN: self} if self.target is None else {MAIN: self, TARGET: self.target}

    def flaws(self) -> Iterator[Flaw]:
        """Check what upstream checks, and what could never act."""
        yield from super().flaws()
        for at, text in enumerate(self.external_targets or ()):
            try:
                endpoint(text)
            except ValueError as flaw:
                yield Flaw(f"externalTargets[{at}]", str(flaw))
        if self.action == "bandwidth" and self.bandwidth is None:
            yield Flaw("bandwidth", "action bandwidth does nothing without it")
        if self.action == "partition":
            return
        if self.action != "bandwidth" and self.impairment() == Impairment():
            part = "delay" if self.action == "netem" else self.action
            yield Flaw(part, f"action {self.action} does nothing without it")
        yield from self._direction_flaws()

    def _direction_flaws(self) -> Iterator[Flaw]:
        if self.direction == "to":
            return
        if self.external_targets is not None:
            yield Flaw(
                "direction",
                "external targets cannot be used with `from` and `both` direction: packets are "
                f"shaped where they are sent; use `to`, not `{self.direction}`",
            )
        if self.target is None:
            yield Flaw(
                "direction",
                "`from` and `both` direction cannot be used when targets is empty: packets are "
                "shaped where they are sent; name the senders in spec.target",
            )

    def impairment(self) -> Impairment:
        """What happens to packets, in numbers; the zero one for a partition."""
        if self.action == "partition":
            return Impairment()
        if self.action == "bandwidth":
            return _bucket(self.bandwidth)
        reorder = self.delay.reorder if self.delay else None
        return Impairment(
            delay_us=_microseconds(self.delay.latency) if self.delay else 0,
            jitter_us=_microseconds(self.delay.jitter) if self.delay else 0,
            delay_correlation=self.delay.correlation if self.delay else 0,
            loss=self.loss.loss if self.loss else 0,
            loss_correlation=self.loss.correlation if self.loss else 0,
            duplicate=self.duplicate.duplicate if self.duplicate else 0,
            duplicate_correlation=self.duplicate.correlation if self.duplicate else 0,
            corrupt=self.corrupt.corrupt if self.corrupt else 0,
            corrupt_correlation=self.corrupt.correlation if self.corrupt else 0,
            reorder=reorder.reorder if reorder else 0,
            reorder_correlation=reorder.correlation if reorder else 0,
            reorder_gap=reorder.gap if reorder else 0,
            rate=self.rate.rate if self.rate else 0,
        )


class WantedCut(Wire):
    """Packets that shall not pass."""

    way: Literal["in", "out"]
    """Seen from the target."""
    peers: tuple[Endpoint, ...] | None = None
    """The other end; None: every packet."""
    device: str = ""
    """Empty: every device but loopback."""


class WantedShape(Wire):
    """Packets that shall suffer."""

    peers: tuple[Endpoint, ...] | None = None
    """Where they go; None: anywhere."""
    impairment: Impairment
    """What happens to them."""
    device: str = ""
    """Empty: the device they leave by."""


class NetworkFault(Fault):
    """What one role of a NetworkChaos does to the packets of its targets."""

    action: Action
    """As in the experiment; for words only."""
    cuts: tuple[WantedCut, ...] = ()
    """Which packets are dropped."""
    shape: WantedShape | None = None
    """Which packets are impaired, and how."""


def share(spec: NetworkChaosSpec, selector_key: str, peers: Peers) -> NetworkFault | None:
    """Give one role its part: packets are shaped where they are sent, and cut at both ends.

    Without `target` and `externalTargets` there is no other end, and every packet is meant. A
    selected other end without addresses means no packet yet.
    """
    main = selector_key == MAIN
    sends = spec.direction in ({"to", "both"} if main else {"from", "both"})
    receives = spec.direction in ({"from", "both"} if main else {"to", "both"})
    device = spec.device if main else spec.target_device
    far = _far(spec, TARGET if main else MAIN, peers)
    if spec.action == "partition":
        ways: list[Literal["in", "out"]] = []
        ways += ["out"] if sends else []
        ways += ["in"] if receives else []
        cuts = tuple(WantedCut(way=way, peers=far, device=device) for way in ways)
        return NetworkFault(action=spec.action, cuts=cuts)
    if not sends:
        return None
    shape = WantedShape(peers=far, impairment=spec.impairment(), device=device)
    return NetworkFault(action=spec.action, shape=shape)


def _far(spec: NetworkChaosSpec, key: str, peers: Peers) -> tuple[Endpoint, ...] | None:
    if spec.target is None and not spec.external_targets:
        return None
    selected = peers.get(key, ())
    found: Iterable[Endpoint] = (
        *(Endpoint(host=str(ip_network(a))) for peer in selected for a in peer.addresses),
        *(
            Endpoint(host=str(ip_network(a)), translated=True)
            for peer in selected
            for a in peer.translated
        ),
        *(endpoint(text) for text in spec.external_targets or ()),
    )
    return tuple(dict.fromkeys(found))


def _bucket(bandwidth: Bandwidth | None) -> Impairment:
    if bandwidth is None:
        return Impairment()
    return Impairment(
        bandwidth_rate=bandwidth.rate,
        bandwidth_buffer=bandwidth.buffer,
        bandwidth_limit=bandwidth.limit,
        bandwidth_peakrate=bandwidth.peakrate or 0,
        bandwidth_minburst=bandwidth.minburst or 0,
    )


def _microseconds(length: timedelta) -> int:
    return length // timedelta(microseconds=1)


def needed(spec: NetworkChaosSpec) -> tuple[str, ...]:
    """Tell cutting, which needs less, from everything that holds packets."""
    return ("network:partition",) if spec.action == "partition" else ("network:shape",)
