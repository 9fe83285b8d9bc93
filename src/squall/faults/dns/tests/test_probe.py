import asyncio

import pytest

from squall.clock import FakeClock, settle
from squall.errors import TryAgain
from squall.faults.dns.injector import DNSInjector
from squall.faults.dns.judgement import as_asked, judge
from squall.faults.dns.probe import ANY_NAME, CERTAIN, DNSProbe, probe_name
from squall.faults.dns.tests.faults import LATE, NXDOMAIN, SERVFAIL, TARGET, fault, live, world
from squall.injection.contract import Sample, Verdict, Way
from squall.injection.laws import Notes
from squall.injection.world.fake_names import FakeNames
from squall.injection.world.names import Answer, NameCounters, Reply

RANDOM, SILENCE, CUT_SHORT = Answer("addresses"), Answer("nothing"), Answer("truncated")


@pytest.fixture
def names():
    return FakeNames()


async def sampled(names, asked, source="a/."):
    """Sample while time passes as it would."""
    clock = FakeClock()
    probe = DNSProbe(world(names, clock))
    task = asyncio.create_task(probe.sample(TARGET, live(asked, source)))
    while not task.done():
        await settle()
        await clock.advance(0.1)
    return await task


async def judged(names, asked, source="a/."):
    await DNSInjector(world(names)).converge(TARGET, [live(asked, source)], Notes())
    during = await sampled(names, asked, source)
    return DNSProbe(world(names)).judge(asked, None, during)


@pytest.mark.parametrize("answer", [SERVFAIL, NXDOMAIN, RANDOM, SILENCE, CUT_SHORT])
async def test_a_fault_that_is_felt_is_confirmed_by_look_ups_of_ours(names, answer):
    judgement = await judged(names, fault(answer, "*.example.com"))
    assert judgement.verdict is Verdict.CONFIRMED, judgement
    assert judgement.asked.endswith("for *.example.com")
    assert judgement.measured == "3 of 3 look-ups hit, 3 of 3 replies as asked (active)"
    assert names.asked == CERTAIN


async def test_look_ups_of_the_target_itself_are_enough(names):
    asked = fault(NXDOMAIN, types=(1, 99))
    await DNSInjector(world(names)).converge(TARGET, [live(asked)], Notes())
    clock = FakeClock()
    task = asyncio.create_task(DNSProbe(world(names, clock)).sample(TARGET, live(asked)))
    await settle()
    names.counted[TARGET.id] = {"a/.": NameCounters(matched=7, hit=7, answered=7)}
    await clock.advance(0.1)
    judgement = judge(asked, await task)
    assert judgement.verdict is Verdict.CONFIRMED
    assert judgement.asked == "NXDOMAIN, for every name (A, TYPE99)"
    assert judgement.measured == "7 of 7 look-ups hit (passive)"
    assert names.asked == 0


class Unaskable(FakeNames):
    """A target whose name servers cannot be found just now."""

    async def ask(self, *_args, **_more):
        raise TryAgain("its resolv.conf cannot be read")


async def test_what_keeps_us_from_asking_is_told_as_it_is():
    with pytest.raises(TryAgain, match=r"resolv\.conf"):
        await judged(Unaskable(), fault(SERVFAIL))


async def test_what_is_not_in_force_is_a_mismatch(names):
    judgement = judge(fault(), await sampled(names, fault()))
    assert judgement.verdict is Verdict.MISMATCH
    assert "nothing of it is in force" in judgement.measured


async def test_what_is_in_force_and_catches_nothing_is_a_mismatch(names):
    names.deaf = True
    judgement = await judged(names, fault())
    assert judgement.verdict is Verdict.MISMATCH
    assert judgement.measured == "3 look-ups made, none was caught (active)"


async def test_silence_confirms_nothing(names):
    names.reachable = False
    assert (await judged(names, fault())).verdict is Verdict.INCONCLUSIVE


async def test_names_that_an_older_experiment_answers_prove_nothing(names):
    wanted = [live(fault(NXDOMAIN)), live(fault(SERVFAIL), "b/.")]
    await DNSInjector(world(names)).converge(TARGET, wanted, Notes())
    judgement = judge(fault(SERVFAIL), await sampled(names, fault(SERVFAIL), "b/."))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "older experiment" in judgement.measured


async def test_a_delay_is_confirmed_by_how_long_queries_were_held(names):
    judgement = await judged(names, fault(LATE, "a.example", delay_us=200_000, jitter_us=1000))
    assert judgement.verdict is Verdict.CONFIRMED
    assert judgement.asked == "right answers, 200 ms late ± 1 ms, for a.example"
    assert "200.0 ms late, mean of 3" in judgement.measured


async def test_an_answer_that_is_later_than_anybody_waits_is_not_missed(names):
    judgement = await judged(names, fault(NXDOMAIN, delay_us=30_000_000))
    assert judgement.verdict is not Verdict.MISMATCH


@pytest.mark.parametrize(
    ("delay_ms", "delayed", "verdict"),
    [
        (109, 3, "Confirmed"),
        (89, 3, "Mismatch"),
        (112, 3, "Confirmed"),  # a busy host wakes us late
        (117, 3, "Mismatch"),
        (150, 2, "Inconclusive"),
        (0, 0, "Inconclusive"),
    ],
)
def test_a_delay_may_be_a_tenth_off_and_a_little_late(delay_ms, delayed, verdict):
    values = {"in_force": 1, "matched": 3, "hit": 3, "delayed": delayed, "delay_ms": delay_ms}
    judgement = judge(fault(LATE, delay_us=100_000), Sample(Way.PASSIVE, values))
    assert judgement.verdict == verdict


@pytest.mark.parametrize(
    ("hit", "matched", "verdict"),
    [
        (50, 100, "Confirmed"),
        (40, 100, "Confirmed"),
        (10, 100, "Mismatch"),
        (100, 100, "Mismatch"),
        (4, 9, "Inconclusive"),
    ],
)
def test_a_share_is_judged_as_chance_is(hit, matched, verdict):
    values = {"in_force": 1, "matched": matched, "hit": hit}
    judgement = judge(fault(percent=50), Sample(Way.PASSIVE, values))
    assert judgement.verdict == verdict
    assert judgement.asked == "SERVFAIL for 50 %, for every name"


def test_none_hit_of_a_small_share_tells_nothing_yet():
    values = {"in_force": 1, "matched": 40, "hit": 0}
    assert judge(fault(percent=1), Sample(Way.PASSIVE, values)).verdict == "Inconclusive"


@pytest.mark.parametrize(
    "values",
    [{"matched": 3, "hit": 2}, {"matched": 3, "hit": 3, "asked": 3, "felt": 2}],
)
def test_one_look_up_that_was_spared_refutes_certainty(values):
    during = Sample(Way.ACTIVE, {"in_force": 1, **values})
    assert judge(fault(), during).verdict is Verdict.MISMATCH


async def test_wrong_addresses_are_told_from_others(names):
    asked = fault(Answer("addresses", addresses=("192.0.2.1",)))
    assert (await judged(names, asked)).verdict is Verdict.CONFIRMED
    during = await sampled(names, fault(RANDOM))
    assert during.values["felt"] == 0


@pytest.mark.parametrize(
    ("answer", "reply", "felt"),
    [
        (SERVFAIL, Reply(2), True),
        (SERVFAIL, Reply(3), False),
        (Answer("code", 0), Reply(0), True),
        (Answer("code", 0), Reply(0, addresses=("192.0.2.1",)), False),
        (RANDOM, Reply(0, addresses=("198.19.0.1", "2001:db8::1")), True),
        (RANDOM, Reply(0, addresses=("198.19.0.1", "192.0.2.1")), False),
        (RANDOM, Reply(0), False),
        (SILENCE, Reply(), True),
        (SILENCE, Reply(2), False),
        (CUT_SHORT, Reply(0, truncated=True), True),
        (CUT_SHORT, Reply(0), False),
        (LATE, Reply(3), True),
        (LATE, Reply(), False),
    ],
)
def test_a_reply_is_held_against_what_was_asked(answer, reply, felt):
    assert as_asked(fault(answer), reply) is felt


@pytest.mark.parametrize(
    ("patterns", "name"),
    [
        ((), ANY_NAME),
        (("*.example.com",), "squall-probe.example.com"),
        (("chaos-mes?.org",), "chaos-mesx.org"),
        (("x" * 60 + "*", "b"), "b"),
        (("*" * 20,), None),
    ],
)
def test_a_name_is_made_that_a_pattern_hits(patterns, name):
    assert probe_name(fault(SERVFAIL, *patterns)) == name
