"""Targets of faults that the API alone brings about: pods, wherever they are."""

from collections.abc import Iterable

from squall.api.cluster import Event
from squall.errors import TargetGone
from squall.injection.world.target import Target
from squall.node.notes import LaneKey


class ApiTargets:
    """Takes every pod to exist until somebody who touches it says that it is gone.

    There is no process to find, and a uid never comes back: nothing has to be watched.
    """

    by_api = True

    def __init__(self) -> None:
        self._gone: set[str] = set()

    def saw(self, event: Event) -> str:
        """Need nothing of a pod."""
        return ""

    async def learn(self, container_ids: Iterable[str]) -> None:
        """Look for no process."""

    def containers_of(self, pod_uid: str) -> tuple[str, ...]:
        """Know no container."""
        return ()

    def forget(self, target: Target) -> None:
        """Remember that a pod is gone."""
        self._gone.add(target.pod_uid)

    async def find(self, key: LaneKey, container_id: str, *, host_network: bool) -> Target:
        """Name the pod, as a target without a process."""
        if key.pod_uid in self._gone:
            raise TargetGone(f"{key.target}: pod {key.pod_uid} is gone")
        return Target(key.target, key.pod_uid, container_id, 0, 0, host_network)
