"""NetworkChaos on one target: everything live is merged into one state, and that is applied."""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_network

from squall.errors import TargetGone, TryAgain
from squall.faults.network.merge import merge, names
from squall.faults.network.model import NetworkFault
from squall.injection.contract import Live, Memory
from squall.injection.world import World
from squall.injection.world.network import NetworkState
from squall.injection.world.target import Target

NAMES_SECONDS = 2.0
"""After which names of live faults are looked up again. A change acts within 5 seconds, though the
look-up and a measurement that is under way take their time too."""


class NetworkInjector:
    """Cuts and impairs what a target sends and receives.

    Needs no notes: all that it puts into the kernel carries our mark and is read back from there.
    """

    def __init__(self, world: World) -> None:
        self._network = world.network
        self._spare_the_node = world.spare_the_node
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}
        """Last addresses by target and name, for when a name server is silent: it may well be the
        fault itself that keeps it from answering."""

    def again_after(self, live: Sequence[Live[NetworkFault]]) -> float | None:
        """Seconds after which to converge again though nothing was asked; None: no need."""
        return NAMES_SECONDS if names(live) else None

    async def converge(
        self, target: Target, live: Sequence[Live[NetworkFault]], memory: Memory
    ) -> None:
        """Make exactly the faults in `live` be in force, names looked up just now.

        Raises:
            TargetGone: the target no longer exists.
            Unsupported: the target is on the network of its node, or the host lacks a means.
            TryAgain: not now, or a name has no address; what has one is hit nevertheless.
        """
        if live:
            self._spare_the_node(target, "network chaos")
        addresses, missing = await self._addresses(target, live)
        wanted = merge(live, addresses)
        # To take everything back, nothing need be read: what cannot be read must go all the same.
        if wanted == NetworkState() or await self._network.state(target) != wanted:
            await self._network.apply(target, wanted)
        if missing:
            raise TryAgain(f"{target.id}: no address for {', '.join(sorted(missing))}")

    async def _addresses(
        self, target: Target, live: Sequence[Live[NetworkFault]]
    ) -> tuple[dict[str, tuple[str, ...]], set[str]]:
        """Look every name up, all at once; those without an address apart."""
        wanted = sorted(names(live))
        async with asyncio.TaskGroup() as lookups:
            found = [lookups.create_task(self._look_up(target, name)) for name in wanted]
        addresses = {name: task.result() for name, task in zip(wanted, found, strict=True)}
        for key in [key for key in self._known if key[0] == target.id and key[1] not in addresses]:
            del self._known[key]
        return addresses, {name for name, cidrs in addresses.items() if not cidrs}

    async def _look_up(self, target: Target, name: str) -> tuple[str, ...]:
        key = target.id, name
        try:
            found = await self._network.resolve(target, name)
        except (TryAgain, TargetGone):  # a target that is gone says so again right after
            found = ()
        if found:
            self._known[key] = tuple(sorted(str(ip_network(address)) for address in found))
        return self._known.get(key, ())
