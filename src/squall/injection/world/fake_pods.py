"""The pods of targets, in memory."""

from squall.errors import TargetGone
from squall.injection.world.fake import Fake, Fate
from squall.injection.world.target import Target


class FakePods(Fake):
    """Every pod exists until it is deleted, and is ready unless it is held down."""

    def __init__(self, fate: Fate | None = None) -> None:
        super().__init__(fate)
        self.deleted: dict[str, int] = {}
        """Grace in seconds that a pod was deleted with, by uid."""
        self.held_down: set[str] = set()
        """Uids of pods that we hold down."""
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

    async def ready(self, target: Target) -> bool:
        """Does nothing keep it from being ready?"""
        return (
            await self.exists(target)
            and target.pod_uid not in self.unready
            and target.pod_uid not in self.held_down
        )

    async def hold_down(self, target: Target, *, down: bool) -> None:
        """Hold the pod down or let go of it, as one change."""
        self._check(target)
        if down != (target.pod_uid in self.held_down):
            self.fate.change()
            self.held_down ^= {target.pod_uid}

    def snapshot(self) -> object:
        """Describe every pod that is not simply ready."""
        return (dict(self.deleted), set(self.held_down), set(self.unready))

    def foreign(self) -> object:
        """Describe what is not ready without us."""
        return set(self.unready)

    def _check(self, target: Target) -> None:
        if target.pod_uid in self.deleted:
            raise TargetGone(f"{target.id}: pod {target.pod_uid} is gone")
