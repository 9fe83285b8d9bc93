"""Pods that stand still."""

from collections.abc import Sequence

from squall.faults.pod.model import PodFault
from squall.injection.contract import Live, Memory
from squall.injection.world import World
from squall.injection.world.target import Target


class PodInjector:
    """Keeps a pod from doing anything while a `pod-failure` is live."""

    def __init__(self, world: World) -> None:
        self._pods = world.pods

    async def converge(
        self,
        target: Target,
        live: Sequence[Live[PodFault]],
        memory: Memory,
    ) -> None:
        """Stop the pod or let it go; how many failures are live makes no difference."""
        if any(one.fault.action == "pod-failure" for one in live):
            await self._pods.stop(target)
        else:
            await self._pods.let_go(target)

    async def marked(self) -> Sequence[Target]:
        """Find the pods that were stopped by whoever was here before."""
        return await self._pods.all_stopped()
