"""The network of targets, in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

from squall.errors import TargetGone
from squall.injection.world.fake import Fake, Fate
from squall.injection.world.network import (
    Counters,
    NetworkState,
    Peers,
    Ping,
    Shape,
)
from squall.injection.world.target import Target


class FakeNetwork(Fake):
    """Remembers what is in force for each target; what it counts and answers is set by hand."""

    def __init__(self, fate: Fate | None = None) -> None:
        super().__init__(fate)
        self.states: dict[str, NetworkState] = {}
        """What is in force, by target id; without an entry, nothing."""
        self.counted: dict[str, dict[str, Counters]] = {}
        """Counters by target id and source; sources in force start at zero."""
        self.names: dict[str, list[str]] = {}
        """Addresses by host name."""
        self.own: dict[str, list[str]] = {}
        """Addresses by target id."""
        self.router: str | None = None
        """Router of the default route of every target."""
        self.others: dict[str, str] = {}
        """Rules of somebody else, by target id; nothing here ever touches them."""
        self.gone: set[str] = set()
        """Ids of targets that have ended."""
        self.rtt_ms = 0.5
        """Round trip of a ping that nothing delays."""
        self.pings = 0
        """Echo requests sent so far."""
        self.longest_ping_seconds = 0.0
        """The longest that anybody was ready to wait for replies."""

    async def state(self, target: Target) -> NetworkState:
        """Read what is in force."""
        self._check(target)
        return self.states.get(target.id, NetworkState())

    async def apply(self, target: Target, wanted: NetworkState) -> None:
        """Put `wanted` in force, as one change; none where it is in force already."""
        self._check(target)
        if wanted == self.states.get(target.id, NetworkState()):
            return
        self.fate.change()
        if wanted == NetworkState():
            del self.states[target.id]
            self.counted.pop(target.id, None)
        else:
            self.states[target.id] = wanted

    async def counters(self, target: Target) -> Mapping[str, Counters]:
        """Read what was set for the sources in force."""
        self._check(target)
        state = self.states.get(target.id, NetworkState())
        counted = self.counted.get(target.id, {})
        sources = [*(cut.source for cut in state.cuts), *(shape.source for shape in state.shapes)]
        return {source: counted.get(source, Counters()) for source in sources}

    async def ping(
        self, target: Target, address: str, *, count: int, within_seconds: float
    ) -> Ping:
        """Answer as the state calls for: cuts refuse, delays add up, certain loss loses all.

        What is counted goes up as the packets of a real ping would make it.
        """
        self._check(target)
        self.pings += count
        self.longest_ping_seconds = max(self.longest_ping_seconds, within_seconds)
        state = self.states.get(target.id, NetworkState())
        cuts = [cut for cut in state.cuts if _covers(cut.peers, address)]
        if any(cut.way == "out" for cut in cuts):
            return Ping(sent=count, received=0, refused=count)
        shapes = [shape for shape in state.shapes if _covers(shape.peers, address)]
        self._count(target, shapes, count)
        delay_ms = sum(shape.impairment.delay_us for shape in shapes) / 1000
        lost = any(shape.impairment.loss == 100 for shape in shapes)  # noqa: PLR2004  (percent)
        if cuts or lost or delay_ms > within_seconds * 1000:
            return Ping(sent=count, received=0)
        return Ping(sent=count, received=count, rtt_ms=(self.rtt_ms + delay_ms,) * count)

    async def addresses(self, target: Target) -> frozenset[str]:
        """Look into `own`."""
        self._check(target)
        return frozenset(self.own.get(target.id, ()))

    async def gateway(self, target: Target, device: str = "") -> str | None:
        """Tell what was set."""
        self._check(target)
        return self.router

    async def resolve(self, target: Target, name: str) -> Sequence[str]:
        """Look into `names`."""
        self._check(target)
        return self.names.get(name, ())

    def snapshot(self) -> object:
        """Describe what is in force, and what is somebody else's."""
        return dict(self.states), dict(self.others)

    def foreign(self) -> object:
        """Describe what is somebody else's."""
        return dict(self.others)

    def _check(self, target: Target) -> None:
        if target.id in self.gone:
            raise TargetGone(f"{target.id}: process {target.pid} has ended")

    def _count(self, target: Target, shapes: Sequence[Shape], count: int) -> None:
        counted = self.counted.setdefault(target.id, {})
        for shape in shapes:
            delay_us = shape.impairment.delay_us
            added = Counters(packets=count)
            if delay_us:
                added = replace(added, delayed=count, delay_us_sum=count * delay_us)
            counted[shape.source] = counted.get(shape.source, Counters()) + added


def _covers(peers: tuple[Peers, ...] | None, address: str) -> bool:
    return peers is None or any(ip_address(address) in ip_network(peer.cidr) for peer in peers)
