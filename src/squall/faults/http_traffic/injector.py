"""HTTPChaos on one target: everything live is merged into one state, and that is applied."""

from collections.abc import Sequence

from squall.errors import Unsupported
from squall.faults.http_traffic.merge import merge
from squall.faults.http_traffic.model import HTTPFault
from squall.injection.contract import Live, Memory
from squall.injection.world import World
from squall.injection.world.http import HttpState
from squall.injection.world.target import Target


class HTTPInjector:
    """Has the HTTP exchanges of a target pass through a proxy of ours while faults are live.

    Needs no notes: all that leads to the proxy ends with it, and what it does is read back from it.
    """

    def __init__(self, world: World) -> None:
        self._http = world.http
        self._allow_host_network = world.allow_host_network

    async def converge(
        self, target: Target, live: Sequence[Live[HTTPFault]], memory: Memory
    ) -> None:
        """Make exactly the faults in `live` be in force.

        Raises:
            TargetGone: the target no longer exists.
            Unsupported: the target is on the network of its node, or the host lacks a means.
            TryAgain: not now.
        """
        if live and target.host_network and not self._allow_host_network:
            raise Unsupported(
                f"it's dangerous to inject HTTP chaos on a pod({target.id}) with `hostNetwork`;"
                " an operator may allow it with the setting allowHostNetwork"
            )
        wanted = merge(live)
        # To take everything back, nothing need be read: what cannot be read must go all the same.
        if wanted == HttpState() or await self._http.state(target) != wanted:
            await self._http.apply(target, wanted)
