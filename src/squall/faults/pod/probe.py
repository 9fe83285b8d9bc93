"""Does the pod stand still, is it gone?"""

from squall.faults.pod.model import PodFault
from squall.injection.contract import Judgement, Live, Sample, Verdict, Way
from squall.injection.world import World
from squall.injection.world.target import Target

_ASKED = {
    "pod-failure": "the pod stands still",
    "pod-kill": "the pod is deleted",
    "container-kill": "the container's process has ended",
}
_UNREAD = {"pod-failure": "the pod was told to, and its node has not done it yet"}
# What each action changes, the value that proves it, and what the opposite means.
_PROOF = {
    "pod-failure": ("stopped", 1.0, "containers of the pod still run"),
    "pod-kill": ("pod_exists", 0.0, "the pod is still there"),
    "container-kill": ("container_alive", 0.0, "the same process still runs"),
}


class PodProbe:
    """Asks the kernel about processes and the API about the pod, not the means what they did."""

    def __init__(self, world: World) -> None:
        self._containers, self._pods = world.containers, world.pods

    async def sample(self, target: Target, live: Live[PodFault]) -> Sample:
        """Read what the action changes; booleans are 0 and 1."""
        values: dict[str, bool]
        match live.fault.action:
            case "pod-failure":
                state = await self._pods.state(target)
                values = {"ready": state.ready}
                if state.stopped is not None:
                    values["stopped"] = state.stopped
            case "pod-kill":
                values = {"pod_exists": await self._pods.exists(target)}
            case "container-kill":
                values = {"container_alive": await self._containers.alive(target)}
        return Sample(Way.PASSIVE, {name: float(value) for name, value in values.items()})

    def judge(self, fault: PodFault, before: Sample | None, during: Sample) -> Judgement:
        """Compare what is there with what the action leads to.

        Readiness is told, not judged: who reports it, and how soon, is up to the cluster.
        """
        name, proves, otherwise = _PROOF[fault.action]
        asked = _ASKED[fault.action]
        if name not in during.values:
            unread = _UNREAD.get(fault.action, f"{name} could not be read")
            return Judgement(Verdict.INCONCLUSIVE, asked, unread)
        if during.values[name] != proves:
            return Judgement(Verdict.MISMATCH, asked, otherwise)
        ready = {1.0: "; still called ready", 0.0: "; not ready"}
        told = ready.get(during.values.get("ready", -1.0), "")
        return Judgement(Verdict.CONFIRMED, asked, asked + told)
