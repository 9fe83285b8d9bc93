import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.api.units import Size
from squall.clock import FakeClock
from squall.errors import TargetGone
from squall.faults.stress.injector import StressInjector
from squall.faults.stress.merge import wanted
from squall.faults.stress.model import CpuStressor, MemoryStressor, StressFault
from squall.injection.contract import Live
from squall.injection.laws import Ground, Laws, Notes
from squall.injection.world import World
from squall.injection.world.fake import Fate
from squall.injection.world.fake_stressors import FakeStressors
from squall.injection.world.stressors import Stressor
from squall.injection.world.target import Target

TARGET = Target("d/web/app", "uid-1", "c1", 100, 5)
HALF = StressFault(cpu=CpuStressor(workers=1, load=50))
FULL = StressFault(cpu=CpuStressor(workers=2))
BOTH = StressFault(
    cpu=CpuStressor(workers=1, load=10, options=["--cpu-method all"]),
    memory=MemoryStressor(workers=2, size=Size(percent=70), oom_score_adj=-5),
)
OWN = StressFault(arguments=("--io", "2"))


def ground():
    fate, clock = Fate(), FakeClock()
    stressors = FakeStressors(clock, fate)
    stressors.others[TARGET.id] = 4711
    return Ground(World(clock, None, None, None, stressors), [stressors], fate)


LAWS = Laws(StressInjector, ground, TARGET)
LIVE = st.lists(
    st.builds(Live, st.sampled_from(["a/.", "b/.", "c/."]), st.sampled_from([HALF, BOTH, OWN])),
    unique_by=lambda one: one.source,
    max_size=3,
)
LIVES = st.lists(LIVE, min_size=1, max_size=3)


async def test_untouched_stays_untouched():
    await LAWS.untouched_stays_untouched()


@given(LIVE)
async def test_twice_is_once(live):
    await LAWS.twice_is_once(live)


@given(LIVES)
async def test_an_empty_list_gives_back_what_was_there(lives):
    await LAWS.empty_gives_back_what_was_there(lives)


@given(LIVES)
async def test_only_the_last_list_counts(lives):
    await LAWS.only_the_last_counts(lives)


@given(LIVES)
async def test_any_kill_is_survived(lives):
    await LAWS.any_kill_is_survived(lives)


@given(LIVES)
async def test_foreign_marks_are_left_alone(lives):
    await LAWS.foreign_marks_are_left_alone(lives)


def test_every_part_of_every_fault_is_a_run_of_its_own():
    live = [Live("a/.", BOTH), Live("b/.", FULL), Live("c/.", OWN)]
    assert wanted(live, 1_000_000_000) == {
        "a/.:cpu": Stressor(
            "a/.:cpu",
            ("--cpu", "1", "--cpu-method", "sqrt", "--cpu-method", "all"),
            cpu_percent=10,
        ),
        "a/.:memory": Stressor(
            "a/.:memory",
            ("--vm", "2", "--vm-keep", "--vm-hang", "0"),
            memory_bytes=700_000_000,
            workers=2,
            oom_score_adj=-5,
        ),
        "b/.:cpu": Stressor("b/.:cpu", ("--cpu", "2", "--cpu-method", "sqrt"), workers=2),
        "c/.:own": Stressor("c/.:own", ("--io", "2")),
    }


@given(LIVE)
def test_the_order_of_faults_makes_no_difference(live):
    assert wanted(live, 10**9) == wanted(live[::-1], 10**9)


def test_memory_without_a_size_is_left_to_stress_ng():
    fault = StressFault(memory=MemoryStressor(workers=1))
    assert wanted([Live("a/.", fault)], 10**9)["a/.:memory"].memory_bytes is None


async def test_two_experiments_add_up_and_peel_off():
    world = ground().world
    injector = StressInjector(world)
    await injector.converge(TARGET, [Live("a/.", HALF), Live("b/.", FULL)], Notes())
    await injector.converge(TARGET, [Live("b/.", FULL)], Notes())
    assert [one.name for one in await world.stressors.running(TARGET)] == ["b/.:cpu"]


async def test_a_run_that_ended_by_itself_is_started_again():
    world = ground().world
    injector = StressInjector(world)
    await injector.converge(TARGET, [Live("a/.", HALF)], Notes())
    await world.stressors.stop(TARGET, "a/.:cpu")
    await injector.converge(TARGET, [Live("a/.", HALF)], Notes())
    assert len(await world.stressors.running(TARGET)) == 1


async def test_a_share_of_memory_follows_the_limit():
    world = ground().world
    injector, live = StressInjector(world), [Live("a/.", BOTH)]
    await injector.converge(TARGET, live, Notes())
    world.stressors.memory_limit //= 2
    await injector.converge(TARGET, live, Notes())
    held = {one.name: one.memory_bytes for one in await world.stressors.running(TARGET)}
    assert held == {"a/.:cpu": None, "a/.:memory": 350_000_000}


async def test_a_container_that_ended_is_gone():
    world = ground().world
    world.stressors.gone.add(TARGET.id)
    with pytest.raises(TargetGone):
        await StressInjector(world).converge(TARGET, [Live("a/.", HALF)], Notes())
