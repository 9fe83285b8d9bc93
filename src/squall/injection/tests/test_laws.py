"""The laws catch injectors that break them, each by the law it breaks."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.clock import FakeClock
from squall.injection.contract import Live
from squall.injection.laws import Ground, Laws
from squall.injection.world import World
from squall.injection.world.fake import Fake, Fate
from squall.injection.world.target import Target

TARGET = Target("default/web", "u1", "aa", 7, 70)
RED, BLUE = Live("x/.", "red"), Live("y/.", "blue")
lives = st.lists(st.permutations([RED, BLUE]) | st.sampled_from([[], [RED], [BLUE]]), min_size=1)


class Shelf(Fake):
    """Two boards; one had a vase on it before."""

    def __init__(self, fate: Fate) -> None:
        super().__init__(fate)
        self.boards = {"upper": "vase", "lower": ""}
        self.labels = {"upper": "theirs"}

    def put(self, board: str, thing: str) -> None:
        self.fate.change()
        self.boards[board] = thing

    def snapshot(self) -> object:
        return dict(self.boards), dict(self.labels)

    def foreign(self) -> object:
        return dict(self.labels)


def ground() -> Ground:
    fate, rest = Fate(), None
    shelf: Any = Shelf(fate)
    return Ground(World(FakeClock(), shelf, rest, rest, rest), [shelf], fate)


class Lawful:
    """Puts the newest fault's thing on both boards."""

    def __init__(self, world: World) -> None:
        self.shelf: Any = world.network

    async def converge(self, target, live, memory) -> None:
        for board, there in self.shelf.boards.items():
            if live:
                memory.keep(board, there.encode())
            was = memory.recall(board)
            wanted = live[-1].fault if live else there if was is None else was.decode()
            if there != wanted:
                self.shelf.put(board, wanted)


class Busy(Lawful):
    async def converge(self, target, live, memory) -> None:
        await super().converge(target, live, memory)
        self.shelf.put("lower", self.shelf.boards["lower"])


class Restless(Lawful):
    async def converge(self, target, live, memory) -> None:
        await super().converge(target, live, memory)
        if live:
            self.shelf.put("lower", self.shelf.boards["lower"])


class Forgetful(Lawful):
    async def converge(self, target, live, memory) -> None:
        for board in self.shelf.boards:
            if live or memory.recall("touched"):
                memory.keep("touched", b"")
                wanted = live[-1].fault if live else ""
                if self.shelf.boards[board] != wanted:
                    self.shelf.put(board, wanted)


class Late(Lawful):
    """Writes down what was there only after it has changed it."""

    async def converge(self, target, live, memory) -> None:
        before = dict(self.shelf.boards)
        for board, there in before.items():
            was = memory.recall(board)
            wanted = live[-1].fault if live else there if was is None else was.decode()
            if there != wanted:
                self.shelf.put(board, wanted)
            if live:
                memory.keep(board, there.encode())


class Nostalgic(Lawful):
    """Leaves the first thing it ever put up on the lower board."""

    async def converge(self, target, live, memory) -> None:
        await super().converge(target, live, memory)
        if live:
            first = memory.keep("first", live[-1].fault.encode()).decode()
            if self.shelf.boards["lower"] != first:
                self.shelf.put("lower", first)


class Rude(Lawful):
    async def converge(self, target, live, memory) -> None:
        await super().converge(target, live, memory)
        if live:
            self.shelf.labels.clear()
        else:
            self.shelf.labels["upper"] = "theirs"


def laws(injector):
    return Laws(injector, ground, TARGET)


async def all_laws(injector, several):
    tried = laws(injector)
    await tried.untouched_stays_untouched()
    await tried.twice_is_once(several[-1])
    await tried.empty_gives_back_what_was_there(several)
    await tried.only_the_last_counts(several)
    await tried.foreign_marks_are_left_alone(several)
    await tried.any_kill_is_survived(several)


@given(lives)
async def test_a_lawful_injector_keeps_every_law(several):
    await all_laws(Lawful, several)


SEVERAL = [[RED, BLUE], [RED]]


@pytest.mark.parametrize(
    ("injector", "breach"),
    [
        (Busy, lambda tried: tried.untouched_stays_untouched()),
        (Restless, lambda tried: tried.twice_is_once([RED])),
        (Forgetful, lambda tried: tried.empty_gives_back_what_was_there(SEVERAL)),
        (Nostalgic, lambda tried: tried.only_the_last_counts(SEVERAL)),
        (Late, lambda tried: tried.any_kill_is_survived(SEVERAL)),
        (Rude, lambda tried: tried.foreign_marks_are_left_alone(SEVERAL)),
    ],
)
async def test_each_law_catches_who_breaks_it(injector, breach):
    with pytest.raises(AssertionError):
        await breach(laws(injector))
