"""The pods of targets, in memory."""

from collections.abc import Sequence

from squall.errors import TargetGone
from squall.injection.world.fake import Fake, Fate
from squall.injection.world.pods import PodState
from squall.injection.world.target import Target


class FakePods(Fake):
    """Every pod exists until it is deleted, and is ready unless it is stopped."""

    def __init__(self, fate: Fate | None = None) -> None:
        super().__init__(fate)
        self.deleted: dict[str, int] = {}
        """Grace in seconds that a pod was deleted with, by uid."""
        self.stopped: dict[str, Target] = {}
        """Pods that we stopped, by uid."""
        self.slow = False
        """True while nobody carries out what pods were told."""
        self.unready: set[str] = set()
        """Uids of pods that are not ready for reasons of their own; set by hand."""

    async def delete(self, target: Target, *, grace_seconds: int) -> None:
        """Delete the pod."""
        self._check(target)
        self.fate.change()
        self.deleted[target.pod_uid] = grace_seconds

    async def exists(self, target: Target) -> bool:
        """Was it not deleted?"""
        return target.pod_uid not in self.deleted

    async def stop(self, target: Target) -> None:
        """Stop the pod, as one change."""
        self._check(target)
        if target.pod_uid not in self.stopped:
            self.fate.change()
            self.stopped[target.pod_uid] = target

    async def let_go(self, target: Target) -> None:
        """Let go of the pod, as one change."""
        self._check(target)
        if target.pod_uid in self.stopped:
            self.fate.change()
            del self.stopped[target.pod_uid]

    async def state(self, target: Target) -> PodState:
        """Say what keeps it from running, if anything does."""
        self._check(target)
        held = target.pod_uid in self.stopped
        ready = target.pod_uid not in self.unready and (not held or self.slow)
        return PodState(None if held and self.slow else held, ready)

    async def all_stopped(self) -> Sequence[Target]:
        """List the pods that we stopped."""
        return [target for uid, target in self.stopped.items() if uid not in self.deleted]

    def snapshot(self) -> object:
        """Describe every pod that is not simply ready."""
        return (dict(self.deleted), dict(self.stopped), set(self.unready))

    def foreign(self) -> object:
        """Describe what is not ready without us."""
        return set(self.unready)

    def _check(self, target: Target) -> None:
        if target.pod_uid in self.deleted:
            raise TargetGone(f"{target.id}: pod {target.pod_uid} is gone")
