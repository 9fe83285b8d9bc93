"""Shapes by way of a packet scheduler in user space, for kernels without `sch_netem`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from squall.injection.world.network import Counters, Shape
from squall.injection.world.target import Target
from squall.linux import namespaces
from squall.linux.namespaces import Namespace
from squall.linux.packets import Held, Lane, PacketsState, Rule
from squall.linux.shaping import Prepared


class Lanes:
    """One lane for each device; it lives and dies with the process that holds the namespace."""

    name: Final = "packets"
    """As `squall doctor` calls this path."""

    async def prepare(
        self, target: Target, namespace: Namespace, shapes: Sequence[Shape]
    ) -> Prepared:
        """Sort shapes into lanes, order kept."""
        rules: dict[str, list[Rule]] = defaultdict(list)
        for shape in shapes:
            device = shape.device or namespaces.default_device(target)
            # The process is told which device was asked for, so that it can be read back.
            source = f"{shape.source}@{shape.device}"
            rules[device].append(Rule(source, shape.peers, shape.impairment))
        return Prepared(tuple(Lane(device, tuple(found)) for device, found in rules.items()))

    async def shapes(
        self, target: Target, namespace: Namespace, held: Held, listed: str
    ) -> Sequence[Shape]:
        """Read the shapes of the lanes; one that the default route has left names its device."""
        found: list[Shape] = []
        for lane in held.lanes:
            for rule in lane.rules:
                source, _, device = rule.source.partition("@")
                if not device and lane.device != namespaces.default_device(target):
                    device = lane.device
                found.append(Shape(source, rule.peers, rule.impairment, device))
        return found

    async def tidy(self, target: Target, namespace: Namespace, shapes: Sequence[Shape]) -> None:
        """Nothing is left: the process has taken back what it no longer holds."""

    async def counters(
        self, target: Target, namespace: Namespace, state: PacketsState
    ) -> Mapping[str, Counters]:
        """Add up what the lanes did for each source."""
        found: dict[str, Counters] = {}
        for key, counted in state.counters.items():
            source = key.partition("@")[0]
            found[source] = found[source] + counted if source in found else counted
        return found
