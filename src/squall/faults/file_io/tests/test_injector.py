import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.errors import TargetGone, TryAgain
from squall.faults.file_io.injector import FileInjector
from squall.faults.file_io.tests.faults import (
    TARGET,
    blackout,
    failing,
    full,
    latency,
    live,
    lying,
    mistaken,
    world,
)
from squall.injection.contract import Live
from squall.injection.laws import Ground, Laws, Notes
from squall.injection.world.fake import Fate
from squall.injection.world.fake_files import FakeFiles
from squall.injection.world.files import FilesState


def ground():
    files = FakeFiles(Fate())
    files.others[TARGET.id] = "overlay on /"
    return Ground(world(files), [files], files.fate)


volumes = st.sampled_from(["/a", "/a/b", "/c"])
faults = st.one_of(
    st.builds(latency, st.integers(1, 1000), volume=volumes),
    st.builds(failing, st.integers(1, 133), volume=volumes),
    st.builds(mistaken, volume=volumes),
    st.builds(lying, size=st.integers(0, 9)),
    st.builds(full, st.integers(0, 9)),
    st.builds(blackout),
)
lives = st.lists(faults, max_size=3).map(
    lambda found: [Live(f"{at}/.", fault) for at, fault in enumerate(found)]
)
laws = Laws(FileInjector, ground, TARGET)


def test_law_untouched_stays_untouched():
    asyncio.run(laws.untouched_stays_untouched())


@given(lives)
def test_law_twice_is_once(wanted):
    asyncio.run(laws.twice_is_once(wanted))


@given(st.lists(lives, max_size=3))
def test_law_empty_gives_back_what_was_there(several):
    asyncio.run(laws.empty_gives_back_what_was_there(several))


@given(st.lists(lives, min_size=1, max_size=3))
def test_law_only_the_last_counts(several):
    asyncio.run(laws.only_the_last_counts(several))


@given(st.lists(lives, min_size=1, max_size=3))
def test_law_any_kill_is_survived(several):
    asyncio.run(laws.any_kill_is_survived(several))


@given(st.lists(lives, max_size=3))
def test_law_foreign_marks_are_left_alone(several):
    asyncio.run(laws.foreign_marks_are_left_alone(several))


async def test_a_target_that_ended_is_told():
    files = FakeFiles()
    files.gone.add(TARGET.id)
    with pytest.raises(TargetGone):
        await FileInjector(world(files)).converge(TARGET, [live(latency())], Notes())


class Unreadable(FakeFiles):
    """What is in force cannot be told."""

    async def state(self, target):
        raise TryAgain(f"{target.id}: no answer")


async def test_what_cannot_be_read_is_taken_back_all_the_same():
    files = FakeFiles()
    await FileInjector(world(files)).converge(TARGET, [live(latency())], Notes())
    broken = Unreadable()
    broken.states = files.states
    await FileInjector(world(broken)).converge(TARGET, [], Notes())
    assert not files.states
    assert await files.state(TARGET) == FilesState()
