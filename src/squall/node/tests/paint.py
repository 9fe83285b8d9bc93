"""A fault kind for tests of the agent: it paints walls, so everything it does is in plain sight."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from squall.api.cluster import Resource
from squall.api.wire import Fault, Wire
from squall.errors import SquallError, TargetGone, TryAgain
from squall.injection.contract import Judgement, Live, Memory, Sample, Verdict, Way
from squall.injection.kind import FaultKind
from squall.injection.world import World
from squall.injection.world.fake import Fake, Fate
from squall.injection.world.target import Target

Coats = tuple[tuple[str, str], ...]
"""(source, color) of every coat, from the wall outwards."""


class Walls(Fake):
    """A wall for each pod or container, and the moods its tests put it in."""

    def __init__(self, fate: Fate | None = None) -> None:
        super().__init__(fate)
        self.coats: dict[str, Coats] = {}
        self.signs: set[str] = set()
        """Walls with a sign that hangs outside of them and does not end with them."""
        self.foreign_coats = {"default/web": "moss"}
        self.pids: set[int] = set()
        """Processes that live."""
        self.raises: dict[str, SquallError | RuntimeError] = {}
        """What painting this color raises."""
        self.stuck: dict[str, asyncio.Event] = {}
        """Targets whose painter waits for the event."""
        self.busy: set[str] = set()
        """Targets that cannot be painted just now."""
        self.painting: Counter[str] = Counter()
        self.visits: Counter[str] = Counter()
        """How often each target was converged."""
        self.struck: list[str] = []
        self.strike_raises: BaseException | None = None
        self.dark = False
        """While it is, nobody can tell whether a wall is painted."""
        self.looks: asyncio.Event | None = None
        """Whoever looks at a painted wall waits for the event."""
        self.unseen_looks = 0
        """How often a strike that was done is not seen yet."""

    def snapshot(self) -> object:
        return dict(self.coats), set(self.signs), dict(self.foreign_coats)

    def foreign(self) -> object:
        return dict(self.foreign_coats)

    def paint(self, target: Target, coats: Coats) -> None:
        if target.pid not in self.pids:
            raise TargetGone(f"{target.id} is gone")
        if coats != self.coats.get(target.id, ()):
            self.fate.change()
            self.coats.pop(target.id, None)
            if coats:
                self.coats[target.id] = coats

    def hang_sign(self, target: Target, *, hang: bool) -> None:
        if hang != (target.id in self.signs):
            self.fate.change()
            (self.signs.add if hang else self.signs.discard)(target.id)


class PaintFault(Fault):
    color: str


class PaintSpec(Wire):
    color: str = ""


def walls_of(world: World) -> Walls:
    walls: Walls = world.network
    return walls


class PaintInjector:
    def __init__(self, world: World) -> None:
        self._walls = walls_of(world)

    async def converge(
        self, target: Target, live: Sequence[Live[PaintFault]], memory: Memory
    ) -> None:
        walls = self._walls
        assert walls.painting[target.id] == 0, "two painters at one wall"
        walls.painting[target.id] += 1
        walls.visits[target.id] += 1
        try:
            if (stuck := walls.stuck.get(target.id)) and live:
                await stuck.wait()
            await asyncio.sleep(0)
            if target.id in walls.busy:
                raise TryAgain(f"{target.id} is busy")
            for each in live:
                if error := walls.raises.get(each.fault.color):
                    raise error
            if live:
                memory.keep("bare", b"yes")
            if live or memory.recall("bare"):
                walls.hang_sign(target, hang=bool(live))
            walls.paint(target, tuple((each.source, each.fault.color) for each in live))
        finally:
            walls.painting[target.id] -= 1

    def again_after(self, live: Sequence[Live[PaintFault]]) -> float | None:
        return 5.0 if any(each.fault.color == "chameleon" for each in live) else None


class PaintStriker:
    def __init__(self, world: World) -> None:
        self._walls = walls_of(world)

    async def strike(self, target: Target, fault: PaintFault) -> None:
        self._walls.fate.change()
        self._walls.struck.append(target.id)
        if self._walls.strike_raises:
            raise self._walls.strike_raises
        self._walls.fate.change()


class PaintProbe:
    def __init__(self, world: World) -> None:
        self._walls = walls_of(world)

    async def sample(self, target: Target, live: Live[PaintFault]) -> Sample:
        coats = dict(self._walls.coats.get(target.id, ()))
        if coats and self._walls.looks:
            await self._walls.looks.wait()
        struck = self._walls.struck.count(target.id)
        if struck and self._walls.unseen_looks:
            self._walls.unseen_looks -= 1
            struck = 0
        values = {
            "coats": float(coats.get(live.source) == live.fault.color),
            "struck": float(struck),
            "dark": float(self._walls.dark),
        }
        return Sample(Way.PASSIVE, values)

    def judge(self, fault: PaintFault, before: Sample | None, during: Sample) -> Judgement:
        if during.values["dark"]:
            return Judgement(Verdict.INCONCLUSIVE, f"a coat of {fault.color}", "it is dark")
        felt = during.values["coats"] or during.values["struck"]
        return Judgement(
            Verdict.CONFIRMED if felt else Verdict.MISMATCH,
            f"a coat of {fault.color}",
            f"{during.values['coats']:g} coats, {before.values['coats']:g} before"
            if before
            else f"{during.values['coats']:g} coats",
        )


PAINT = FaultKind(
    resource=Resource("chaos-mesh.org", "v1alpha1", "PaintChaos", "paintchaos"),
    spec=PaintSpec,
    fault=PaintFault,
    share=lambda spec, key, peers: PaintFault(color=spec.color),
    needs=("network:paint",),
    injector=f"{__name__}:PaintInjector",
    striker=f"{__name__}:PaintStriker",
    probe=f"{__name__}:PaintProbe",
)
