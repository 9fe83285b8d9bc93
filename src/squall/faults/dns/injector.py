"""DNSChaos on one target: everything live is merged into one list of rules, and that is applied."""

from collections.abc import Sequence

from squall.errors import Unsupported
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
        self._allow_host_network = world.allow_host_network

    async def converge(
        self, target: Target, live: Sequence[Live[DNSFault]], memory: Memory
    ) -> None:
        """Make exactly the faults in `live` be in force.

        Raises:
            TargetGone: the target no longer exists.
            Unsupported: the target is on the network of its node, or the host lacks a means.
            TryAgain: not now.
        """
        if live and target.host_network and not self._allow_host_network:
            raise Unsupported(
                f"it's dangerous to inject dns chaos on a pod({target.id}) with `hostNetwork`;"
                " an operator may allow it with the setting allowHostNetwork"
            )
        wanted = merge(live)
        # To take everything back, nothing need be read: what cannot be read must go all the same.
        if not wanted or tuple(await self._names.state(target)) != wanted:
            await self._names.apply(target, wanted)
