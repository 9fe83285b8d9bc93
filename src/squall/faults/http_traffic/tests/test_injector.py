import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.errors import TargetGone, TryAgain, Unsupported
from squall.faults.http_traffic.injector import HTTPInjector
from squall.faults.http_traffic.tests.faults import TARGET, fault, live, world
from squall.injection.contract import Live
from squall.injection.laws import Ground, Laws, Notes
from squall.injection.world.fake import Fate
from squall.injection.world.fake_http import FakeHttp
from squall.injection.world.fake_trust import FakeTrust
from squall.injection.world.target import Target

SHARED = Target("default/web", "uid", "c", 1, 1, host_network=True)


def ground():
    http = FakeHttp(Fate())
    http.others[TARGET.id] = "envoy on 15001"
    trust = FakeTrust(http.fate)
    return Ground(world(http, trust=trust), [http, trust], http.fate)


faults = st.one_of(
    st.builds(
        fault, abort=st.just(True), port=st.integers(1, 5), path=st.sampled_from(["/a", "*"])
    ),
    st.builds(fault, abort=st.just(True), port=st.just(443), outgoing=st.booleans()),
    st.builds(fault, delay=st.sampled_from(["1ms", "2s"]), target=st.just("Response")),
)
lives = st.lists(faults, max_size=3).map(
    lambda found: [Live(f"{at}/.", fault) for at, fault in enumerate(found)]
)
laws = Laws(HTTPInjector, ground, TARGET)


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


async def test_a_target_on_the_network_of_its_node_is_refused():
    http = FakeHttp()
    with pytest.raises(Unsupported, match="it's dangerous to inject HTTP chaos on a pod"):
        await HTTPInjector(world(http)).converge(SHARED, [live(fault(abort=True))], Notes())
    assert http.changes == 0
    await HTTPInjector(world(http)).converge(SHARED, [], Notes())


async def test_a_target_on_the_network_of_its_node_is_hit_where_that_is_allowed():
    http = FakeHttp()
    injector = HTTPInjector(world(http, allow_host_network=True))
    await injector.converge(SHARED, [live(fault(abort=True))], Notes())
    assert http.states[SHARED.id].rules


async def test_a_target_that_ended_is_told():
    http = FakeHttp()
    http.gone.add(TARGET.id)
    with pytest.raises(TargetGone):
        await HTTPInjector(world(http)).converge(TARGET, [live(fault(abort=True))], Notes())


class Unreadable(FakeHttp):
    """What is in force cannot be told."""

    async def state(self, target):
        raise TryAgain(f"{target.id}: the proxy does not answer")


async def test_what_cannot_be_read_is_taken_back_all_the_same():
    http, notes = FakeHttp(), Notes()
    await HTTPInjector(world(http)).converge(TARGET, [live(fault(abort=True))], notes)
    broken = Unreadable()
    broken.states = http.states
    await HTTPInjector(world(broken)).converge(TARGET, [], notes)
    assert not http.states


OUT = {"outgoing": True, "port": 443, "abort": True}


async def test_for_outgoing_tls_the_target_trusts_an_authority_of_that_experiment_alone():
    http, trust, notes = FakeHttp(), FakeTrust(), Notes()
    injector = HTTPInjector(world(http, trust=trust))
    a, b = live(fault(**OUT)), live(fault(**OUT), "b/.")
    await injector.converge(TARGET, [a, b], notes)
    held = {one.source: one.certificate for one in http.states[TARGET.id].authorities}
    assert held == trust.lists[TARGET.id]
    assert set(held) == {"a/.", "b/."}
    first = http.states[TARGET.id].authorities[0]
    assert (first.roots, "PRIVATE KEY" in first.key, "KEY" in first.certificate) == (
        "theirs", True, False,
    )  # fmt: skip
    await HTTPInjector(world(http, trust=trust)).converge(TARGET, [b], notes)
    assert trust.lists[TARGET.id] == {"b/.": held["b/."]}
    await injector.converge(TARGET, [], notes)
    assert not trust.lists[TARGET.id]


@pytest.mark.parametrize("asked", [{"port": 80}, {"openTls": False}])
async def test_where_no_tls_is_opened_nobody_looks_at_what_is_trusted(asked):
    http, trust, notes = FakeHttp(), FakeTrust(), Notes()
    injector = HTTPInjector(world(http, trust=trust))
    for wanted in ([live(fault(**OUT | asked))], []):
        await injector.converge(TARGET, wanted, notes)
    assert (trust.reads, notes.kept) == (0, {})


async def test_a_target_without_a_list_is_hit_without_an_authority():
    http, trust, notes = FakeHttp(), FakeTrust(), Notes()
    trust.theirs = ""
    await HTTPInjector(world(http, trust=trust)).converge(TARGET, [live(fault(**OUT))], notes)
    state = http.states[TARGET.id]
    assert (len(state.rules), state.authorities, notes.kept) == (1, (), {})
