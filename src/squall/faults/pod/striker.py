"""Kills of pods and containers."""

from squall.errors import InvalidFault
from squall.faults.pod.model import PodFault
from squall.injection.world import World
from squall.injection.world.target import Target


class PodStriker:
    """Kills a pod by its uid, or a container by its init process: never another one."""

    def __init__(self, world: World) -> None:
        self._containers, self._pods = world.containers, world.pods

    async def strike(self, target: Target, fault: PodFault) -> None:
        """Kill once; `TargetGone` when somebody was faster."""
        match fault.action:
            case "pod-kill":
                await self._pods.delete(target, grace_seconds=fault.grace_period)
            case "container-kill":
                await self._containers.kill(target)
            case "pod-failure":
                raise InvalidFault(f"{target.id}: {fault.action} is a state, it cannot be struck")
