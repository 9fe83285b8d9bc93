from hypothesis import given
from hypothesis import strategies as st

from squall.clock import FakeClock
from squall.faults.pod.injector import PodInjector
from squall.faults.pod.model import PodFault
from squall.injection.contract import Live, Marking
from squall.injection.laws import Ground, Laws, Notes
from squall.injection.world import World
from squall.injection.world.fake import Fate
from squall.injection.world.fake_containers import FakeContainers
from squall.injection.world.fake_pods import FakePods
from squall.injection.world.pods import PodState
from squall.injection.world.target import Target

TARGET = Target("d/web", "uid-1", "c1", 100, 5)
FAILURE = PodFault(action="pod-failure")


def ground(*, foreign=True):
    fate = Fate()
    containers, pods = FakeContainers(fate), FakePods(fate)
    if foreign:
        containers.others.add(TARGET.id)
        pods.unready.add("uid-2")
    world = World(FakeClock(), None, containers, pods, None)
    return Ground(world, [containers, pods], fate)


LAWS = Laws(PodInjector, ground, TARGET)
LIVE = st.lists(
    st.sampled_from([Live("a/.", FAILURE), Live("b/.", FAILURE)]), unique=True, max_size=2
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


async def test_a_failing_pod_stands_still_and_is_not_ready():
    world = ground(foreign=False).world
    await PodInjector(world).converge(TARGET, [Live("a/.", FAILURE)], Notes())
    assert await world.pods.state(TARGET) == PodState(stopped=True, ready=False)


async def test_the_first_of_two_failures_to_end_does_not_let_go():
    world = ground().world
    injector = PodInjector(world)
    await injector.converge(TARGET, [Live("a/.", FAILURE), Live("b/.", FAILURE)], Notes())
    await injector.converge(TARGET, [Live("b/.", FAILURE)], Notes())
    assert (await world.pods.state(TARGET)).stopped


async def test_what_a_crash_left_stopped_is_found_by_its_mark():
    world = ground().world
    assert await PodInjector(world).marked() == []
    await PodInjector(world).converge(TARGET, [Live("a/.", FAILURE)], Notes())
    assert await PodInjector(world).marked() == [TARGET]
    assert isinstance(PodInjector(world), Marking)
