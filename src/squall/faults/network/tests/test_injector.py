import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.errors import TargetGone, TryAgain, Unsupported
from squall.faults.network.injector import NAMES_SECONDS, NetworkInjector
from squall.faults.network.tests.faults import TARGET, delay, live, partition, world
from squall.injection.contract import Live
from squall.injection.laws import Ground, Laws, Notes
from squall.injection.world.fake import Fate
from squall.injection.world.fake_network import FakeNetwork
from squall.injection.world.network import NetworkState, Peers
from squall.injection.world.target import Target


def ground():
    network = FakeNetwork(Fate())
    network.others[TARGET.id] = "table inet filter"
    network.names["db"] = ["10.0.0.9", "fd00::9"]
    return Ground(world(network), [network], network.fate)


hosts = st.sampled_from(["10.0.0.7", "fd00::7", "10.0.0.0/8", "db", "10.0.0.7:80"])
peers = st.none() | st.lists(hosts, min_size=1, max_size=3)
faults = st.one_of(
    st.builds(partition, peers, way=st.sampled_from(["in", "out"])),
    st.builds(delay, peers, delay_us=st.integers(1, 10**6)),
)
lives = st.lists(faults, max_size=3).map(
    lambda found: [Live(f"{at}/.", fault) for at, fault in enumerate(found)]
)
laws = Laws(NetworkInjector, ground, TARGET)


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


async def test_a_target_on_the_network_of_its_node_is_refused_in_the_words_of_upstream():
    network = FakeNetwork()
    shared = Target("default/web", "uid", "c", 1, 1, host_network=True)
    with pytest.raises(Unsupported, match="it's dangerous to inject network chaos on a pod"):
        await NetworkInjector(world(network)).converge(shared, [live(partition())], Notes())
    assert network.changes == 0
    await NetworkInjector(world(network)).converge(shared, [], Notes())


async def test_a_target_on_the_network_of_its_node_is_hit_where_that_is_allowed():
    network = FakeNetwork()
    shared = Target("default/web", "uid", "c", 1, 1, host_network=True)
    injector = NetworkInjector(world(network, allow_host_network=True))
    await injector.converge(shared, [live(partition())], Notes())
    assert network.states[shared.id].cuts


async def test_a_name_that_moves_is_followed():
    network = FakeNetwork()
    injector = NetworkInjector(world(network))
    wanted = [live(partition(["db"]))]
    for address in ("10.0.0.1", "fd00::2"):
        network.names["db"] = [address]
        await injector.converge(TARGET, wanted, Notes())
        [cut] = network.states[TARGET.id].cuts
        assert cut.peers == (Peers(f"{address}/{128 if ':' in address else 32}"),)
    assert injector.again_after(wanted) == NAMES_SECONDS
    assert injector.again_after([live(partition(["10.0.0.1"]))]) is None


async def test_a_silent_name_server_changes_nothing_but_is_told():
    network = FakeNetwork()
    injector = NetworkInjector(world(network))
    network.names["db"] = ["10.0.0.1"]
    await injector.converge(TARGET, [live(partition(["db"]))], Notes())
    network.names.clear()
    before = network.states[TARGET.id]
    await injector.converge(TARGET, [live(partition(["db"]))], Notes())
    assert network.states[TARGET.id] == before


async def test_a_name_without_an_address_keeps_no_other_fault_back():
    network = FakeNetwork()
    wanted = [live(partition(["nowhere"])), live(delay(["10.0.0.7"]), "b/.")]
    with pytest.raises(TryAgain, match="no address for nowhere"):
        await NetworkInjector(world(network)).converge(TARGET, wanted, Notes())
    assert [shape.source for shape in network.states[TARGET.id].shapes] == ["b/."]
    assert network.states[TARGET.id].cuts == ()


async def test_a_target_that_ended_is_told():
    network = FakeNetwork()
    network.gone.add(TARGET.id)
    with pytest.raises(TargetGone):
        await NetworkInjector(world(network)).converge(TARGET, [live(partition(["db"]))], Notes())


async def test_nothing_live_is_nothing_in_force():
    network = FakeNetwork()
    injector = NetworkInjector(world(network))
    await injector.converge(TARGET, [live(delay())], Notes())
    await injector.converge(TARGET, [], Notes())
    assert await network.state(TARGET) == NetworkState()


class Unreadable(FakeNetwork):
    """What is in force cannot be told."""

    async def state(self, target):
        raise TryAgain(f"{target.id}: nft failed")


async def test_what_cannot_be_read_is_taken_back_all_the_same():
    network, notes = FakeNetwork(), Notes()
    await NetworkInjector(world(network)).converge(TARGET, [live(partition())], notes)
    broken = Unreadable()
    broken.states = network.states
    await NetworkInjector(world(broken)).converge(TARGET, [], notes)
    assert not network.states
