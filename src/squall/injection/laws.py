"""The laws every injector keeps, on any world: in memory or on a real kernel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from squall.errors import TargetGone
from squall.injection.contract import Injector, Live
from squall.injection.world import World
from squall.injection.world.fake import Fate, Killed, Part
from squall.injection.world.target import Target

F = TypeVar("F")

ENOUGH_KILLS = 1000
"""An injector with more changes than this in a few converges does not come to rest."""


@dataclass(frozen=True, slots=True)
class Ground:
    """One world to try an injector in, and what of it is compared."""

    world: World
    parts: Sequence[Part]
    fate: Fate = field(default_factory=Fate)
    """Shared by the fakes in `parts`; on a real kernel it never moves and nothing is killed."""

    def snapshot(self) -> object:
        """Describe every part."""
        return [part.snapshot() for part in self.parts]

    def foreign(self) -> object:
        """Describe what in any part does not carry our mark."""
        return [part.foreign() for part in self.parts]


class Notes:
    """A memory on the disk of a fake world: it outlives the injector, and writing may kill."""

    def __init__(self, fate: Fate | None = None) -> None:
        self.kept: dict[str, bytes] = {}
        self._fate = fate or Fate()

    def keep(self, key: str, value: bytes) -> bytes:
        """Store `value` unless something is there; return what is there."""
        if key not in self.kept:
            self._fate.change()
            self.kept[key] = value
        return self.kept[key]

    def recall(self, key: str) -> bytes | None:
        """Read what was kept."""
        return self.kept.get(key)


class Laws(Generic[F]):
    """Drives one injector through the laws; each method is one, and asserts.

    Args:
        injector: makes a fresh one; a crash of the agent is a second call.
        ground: makes a fresh world, the same one at each call, foreign marks planted.
        target: what is converged; it exists on every ground.
    """

    def __init__(
        self,
        injector: Callable[[World], Injector[F]],
        ground: Callable[[], Ground],
        target: Target,
    ) -> None:
        self._injector, self._ground, self._target = injector, ground, target

    async def untouched_stays_untouched(self) -> None:
        """Converging an untouched target to nothing changes nothing and notes nothing."""
        ground = self._ground()
        before = ground.snapshot()
        await self._converge(ground, Notes(ground.fate), ())
        assert ground.snapshot() == before
        assert ground.fate.changes == 0

    async def twice_is_once(self, live: Sequence[Live[F]]) -> None:
        """Converging again, by the same injector or a fresh one, changes nothing."""
        ground = self._ground()
        notes = Notes(ground.fate)
        await self._converge(ground, notes, live)
        once, changes = ground.snapshot(), ground.fate.changes
        await self._converge(ground, notes, live, live)
        assert ground.snapshot() == once
        assert ground.fate.changes == changes

    async def empty_gives_back_what_was_there(self, lives: Sequence[Sequence[Live[F]]]) -> None:
        """Whatever was live in whatever order, an empty sequence restores the target."""
        ground = self._ground()
        before, notes = ground.snapshot(), Notes(ground.fate)
        await self._converge(ground, notes, *lives, ())
        assert ground.snapshot() == before

    async def only_the_last_counts(self, lives: Sequence[Sequence[Live[F]]]) -> None:
        """The way there leaves no mark: a straight way leads to the same state."""
        ground, straight = self._ground(), self._ground()
        await self._converge(ground, Notes(ground.fate), *lives)
        await self._converge(straight, Notes(straight.fate), lives[-1])
        assert ground.snapshot() == straight.snapshot()

    async def any_kill_is_survived(self, lives: Sequence[Sequence[Live[F]]]) -> None:
        """Killed before any change, a fresh injector restores, or injects and then restores."""
        straight = self._ground()
        await self._converge(straight, Notes(straight.fate), lives[-1])
        for at in range(ENOUGH_KILLS):
            for again in ((), (lives[-1],)):
                ground = self._ground()
                before, notes = ground.snapshot(), Notes(ground.fate)
                ground.fate.die_before = at
                if not await self._killed(ground, notes, lives):
                    return
                ground.fate.die_before = None
                await self._converge(ground, notes, *again)
                if again:
                    assert ground.snapshot() == straight.snapshot(), f"injected after kill {at}"
                await self._converge(ground, notes, ())
                assert ground.snapshot() == before, f"restored after kill {at}"
        raise AssertionError(f"more than {ENOUGH_KILLS} changes: it never comes to rest")

    async def foreign_marks_are_left_alone(self, lives: Sequence[Sequence[Live[F]]]) -> None:
        """What carries somebody else's mark is the same before, during and after."""
        ground = self._ground()
        foreign, notes = ground.foreign(), Notes(ground.fate)
        for live in (*lives, ()):
            await self._converge(ground, notes, live)
            assert ground.foreign() == foreign

    async def _killed(
        self, ground: Ground, notes: Notes, lives: Sequence[Sequence[Live[F]]]
    ) -> bool:
        try:
            await self._converge(ground, notes, *lives)
        except Killed:
            return True
        return False

    async def _converge(self, ground: Ground, notes: Notes, *lives: Sequence[Live[F]]) -> None:
        """Let one fresh injector go through `lives`; a target that is gone counts as restored."""
        injector = self._injector(ground.world)
        for live in lives:
            try:
                await injector.converge(self._target, live, notes)
            except TargetGone:
                assert not live, "a target that laws are tried on exists"
