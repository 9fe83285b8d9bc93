"""The processes of containers, in memory."""

from squall.errors import TargetGone
from squall.injection.world.fake import Fake, Fate
from squall.injection.world.target import Target


class FakeContainers(Fake):
    """Containers run until they are killed; who froze them is set by hand for others."""

    def __init__(self, fate: Fate | None = None) -> None:
        super().__init__(fate)
        self.gone: set[str] = set()
        """Ids of targets whose init process has ended."""
        self.ours: set[str] = set()
        """Ids of targets that carry our mark."""
        self.others: set[str] = set()
        """Ids of targets that somebody else has frozen; nothing here ever touches them."""

    async def kill(self, target: Target) -> None:
        """End the container."""
        self._check(target)
        self.fate.change()
        self.gone.add(target.id)

    async def alive(self, target: Target) -> bool:
        """Was it not killed?"""
        return target.id not in self.gone

    async def freeze(self, target: Target) -> None:
        """Put our mark on the target, as one change."""
        self._check(target)
        if target.id not in self.ours:
            self.fate.change()
            self.ours.add(target.id)

    async def thaw(self, target: Target) -> None:
        """Take our mark away."""
        self._check(target)
        if target.id in self.ours:
            self.fate.change()
            self.ours.remove(target.id)

    async def frozen(self, target: Target) -> bool:
        """Is our mark there?"""
        self._check(target)
        return target.id in self.ours

    def snapshot(self) -> object:
        """Describe who is frozen by whom, and who has ended."""
        return (set(self.ours), set(self.others), set(self.gone))

    def foreign(self) -> object:
        """Describe what others froze."""
        return set(self.others)

    def _check(self, target: Target) -> None:
        if target.id in self.gone:
            raise TargetGone(f"{target.id}: process {target.pid} has ended")
