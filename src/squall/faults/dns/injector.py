"""DNSChaos on one target: everything live is merged into one list of rules, and that is applied."""

from collections.abc import Sequence

from squall.faults.dns.merge import merge
from squall.faults.dns.model import DNSFault
from squall.injection.contract import Live, Memory
from squall.injection.world import World
from squall.injection.world.target import Target


class DNSInjector:
    """Changes what a target is told about names.

    Needs no notes: whoever holds the faults says what is in force, and all of it ends with him.
    """

    def __init__(self, world: World) -> None:
        self._names = world.names
        self._spare_the_node = world.spare_the_node

    async def converge(
        self, target: Target, live: Sequence[Live[DNSFault]], memory: Memory
    ) -> None:
        """Make exactly the faults in `live` be in force.

        Raises:
            TargetGone: the target no longer exists.
            Unsupported: the target is on the network of its node, or the host lacks a means.
            TryAgain: not now.
        """
        if live:
            self._spare_the_node(target, "dns chaos")
        await self._names.apply(target, merge(live))  # which changes nothing where it is so
