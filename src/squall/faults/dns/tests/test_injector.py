import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.errors import TargetGone, Unsupported
from squall.faults.dns.injector import DNSInjector
from squall.faults.dns.merge import merge
from squall.faults.dns.tests.faults import LATE, NXDOMAIN, SERVFAIL, TARGET, fault, live, world
from squall.injection.contract import Live
from squall.injection.laws import Ground, Laws, Notes
from squall.injection.world.fake import Fate
from squall.injection.world.fake_names import FakeNames
from squall.injection.world.names import Answer
from squall.injection.world.target import Target


def ground():
    names = FakeNames(Fate())
    names.others[TARGET.id] = "table inet filter"
    return Ground(world(names), [names], names.fate)


answers = st.sampled_from([SERVFAIL, NXDOMAIN, LATE, Answer("nothing"), Answer("addresses")])
faults = st.builds(
    lambda answer, patterns, percent: fault(answer, *patterns, percent=percent),
    answers,
    st.lists(st.sampled_from(["*", "a.example", "*.example"]), max_size=2),
    st.integers(1, 100),
)
lives = st.lists(faults, max_size=3).map(
    lambda found: [Live(f"{at}/.", one) for at, one in enumerate(found)]
)
laws = Laws(DNSInjector, ground, TARGET)


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


@given(lives)
def test_faults_stand_behind_each_other_oldest_first(wanted):
    rules = merge(wanted)
    assert [rule.source for rule in rules] == [one.source for one in wanted]
    assert [rule.answer for rule in rules] == [one.fault.answer for one in wanted]
    assert [rule.percent for rule in rules] == [one.fault.percent for one in wanted]


async def test_of_two_that_answer_one_name_the_older_wins_until_it_ends():
    names = FakeNames()
    injector = DNSInjector(world(names))
    older, younger = live(fault(NXDOMAIN)), live(fault(SERVFAIL), "b/.")

    async def code():
        return (await names.ask(TARGET, "a.example", 1, within_seconds=1)).code

    await injector.converge(TARGET, [older, younger], Notes())
    assert await code() == NXDOMAIN.code
    await injector.converge(TARGET, [younger], Notes())
    assert await code() == SERVFAIL.code


async def test_a_target_on_the_network_of_its_node_is_refused_in_the_words_of_upstream():
    names = FakeNames()
    shared = Target("default/web", "uid", "c", 1, 1, host_network=True)
    with pytest.raises(Unsupported, match="it's dangerous to inject dns chaos on a pod"):
        await DNSInjector(world(names)).converge(shared, [live(fault())], Notes())
    assert names.changes == 0
    await DNSInjector(world(names)).converge(shared, [], Notes())


async def test_a_target_on_the_network_of_its_node_is_hit_where_that_is_allowed():
    names = FakeNames()
    shared = Target("default/web", "uid", "c", 1, 1, host_network=True)
    injector = DNSInjector(world(names, allow_host_network=True))
    await injector.converge(shared, [live(fault())], Notes())
    assert names.states[shared.id]


async def test_a_target_that_has_gone_says_so():
    names = FakeNames()
    names.gone.add(TARGET.id)
    for wanted in ([live(fault())], []):
        with pytest.raises(TargetGone):
            await DNSInjector(world(names)).converge(TARGET, wanted, Notes())
