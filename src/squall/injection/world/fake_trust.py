"""The lists of trusted authorities of targets, in memory."""

from collections.abc import Mapping

from squall.errors import TargetGone
from squall.injection.world.fake import Fake, Fate
from squall.injection.world.target import Target


class FakeTrust(Fake):
    """One list for each target."""

    def __init__(self, fate: Fate | None = None) -> None:
        super().__init__(fate)
        self.lists: dict[str, dict[str, str]] = {}
        """What of ours is in them, by target id."""
        self.theirs = "theirs"
        """What else; empty where targets have no list."""
        self.gone: set[str] = set()
        """Ids of targets that have ended."""
        self.reads = 0

    async def roots(self, target: Target) -> str:
        """Tell what was set."""
        self._check(target)
        return self.theirs

    async def ours(self, target: Target) -> Mapping[str, str]:
        """Read the list."""
        self._check(target)
        return dict(self.lists.get(target.id, {}))

    async def apply(self, target: Target, wanted: Mapping[str, str]) -> None:
        """Change the list, one entry at a time; none where there is no list."""
        self._check(target)
        there = self.lists.setdefault(target.id, {})
        for mark in [mark for mark in there if there[mark] != wanted.get(mark)]:
            self.fate.change()
            del there[mark]
        for mark, certificate in wanted.items():
            if self.theirs and mark not in there:
                self.fate.change()
                there[mark] = certificate

    def snapshot(self) -> object:
        """Describe every list; of what is ours, the marks."""
        return {id_: sorted(there) for id_, there in self.lists.items() if there}, self.theirs

    def foreign(self) -> object:
        """Describe what is not ours."""
        return self.theirs

    def _check(self, target: Target) -> None:
        self.reads += 1
        if target.id in self.gone:
            raise TargetGone(f"{target.id}: process {target.pid} has ended")
