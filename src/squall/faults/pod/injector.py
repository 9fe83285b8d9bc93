"""Pods that stand still."""

from collections.abc import Sequence

from squall.faults.pod.model import PodFault
from squall.injection.contract import Live, Memory
from squall.injection.world import World
from squall.injection.world.target import Target


class PodInjector:
    """Stops the processes of a pod, and makes its readiness fail, while a `pod-failure` is live."""

    def __init__(self, world: World) -> None:
        self._containers, self._pods = world.containers, world.pods

    async def converge(
        self, target: Target, live: Sequence[Live[PodFault]], memory: Memory
    ) -> None:
        """Freeze or thaw; how many failures are live makes no difference.

        Both means carry marks of their own outside the agent, so nothing has to be remembered.
        """
        if any(one.fault.action == "pod-failure" for one in live):
            await self._containers.freeze(target)
            await self._pods.hold_down(target, down=True)
            return
        try:
            # First, since it needs no API: a target must thaw while that is away.
            await self._containers.thaw(target)
        finally:
            # Also of a pod whose container has ended: the next one must not begin as not ready.
            await self._pods.hold_down(target, down=False)
