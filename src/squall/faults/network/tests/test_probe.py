import asyncio

import pytest

from squall.clock import FakeClock
from squall.faults.network.endpoint import Endpoint
from squall.faults.network.injector import NetworkInjector
from squall.faults.network.judgement import judge
from squall.faults.network.merge import merge
from squall.faults.network.model import NetworkFault, WantedCut
from squall.faults.network.probe import NetworkProbe, reachable
from squall.faults.network.tests.faults import TARGET, delay, live, partition, shaping, world
from squall.injection.contract import Sample, Verdict, Way
from squall.injection.laws import Notes
from squall.injection.world.fake_network import FakeNetwork
from squall.injection.world.network import Counters

FAR = ["10.0.0.7"]
BEFORE_SECONDS = 0.005
"""What an agent grants a probe before a fault."""


async def sample(probe, clock, wanted):
    """Sample while the clock goes on by itself."""
    task = asyncio.ensure_future(probe.sample(TARGET, wanted))
    while not task.done():
        await clock.advance(0.1)
    return await task


async def judged(fault, *, sabotage=None, traffic=None, router=None):
    """What the probe makes of a fault: before it, then during it, on an idle target or not."""
    network, clock = FakeNetwork(), FakeClock()
    network.router = router
    here = world(network, clock)
    probe, wanted = NetworkProbe(here), live(fault)
    before = await sample(probe, clock, wanted)
    await NetworkInjector(here).converge(TARGET, [wanted], Notes())
    if sabotage:
        sabotage(network)
    if traffic:
        network.counted[TARGET.id] = {"a/.": Counters()}
    task = asyncio.ensure_future(probe.sample(TARGET, wanted))
    await clock.advance(0.01)
    if traffic:
        network.counted[TARGET.id] = {"a/.": traffic}
    while not task.done():
        await clock.advance(0.1)
    return probe.judge(fault, before, await task)


@pytest.mark.parametrize("fault", [delay(FAR), partition(FAR), partition(FAR, way="in")])
async def test_an_idle_target_is_pinged_and_confirms(fault):
    judgement = await judged(fault)
    assert judgement.verdict is Verdict.CONFIRMED
    assert "active" in judgement.measured


@pytest.mark.parametrize("fault", [delay(), partition(), delay(["10.0.0.7:80"]), delay(["db"])])
async def test_an_idle_target_without_an_address_to_ping_confirms_nothing(fault):
    network, clock = FakeNetwork(), FakeClock()
    network.names["db"] = FAR
    await NetworkInjector(world(network)).converge(TARGET, [live(fault)], Notes())
    probe = NetworkProbe(world(network, clock))
    judgement = probe.judge(fault, None, await sample(probe, clock, live(fault)))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "no traffic" in judgement.measured


@pytest.mark.parametrize("fault", [delay(), partition(), partition(way="in")])
async def test_where_everything_is_hit_the_next_router_is_pinged(fault):
    judgement = await judged(fault, router="10.0.0.1")
    assert judgement.verdict is Verdict.CONFIRMED
    assert "active" in judgement.measured


async def test_how_the_path_was_before_is_known_before_a_fault_may_wait_no_longer():
    network, clock = FakeNetwork(), FakeClock()
    before = await sample(NetworkProbe(world(network, clock)), clock, live(delay(FAR)))
    assert before.values["pings_received"] == before.values["pings_sent"]
    assert network.longest_ping_seconds < BEFORE_SECONDS


@pytest.mark.parametrize("fault", [delay(FAR), partition(FAR), delay(), partition()])
async def test_a_fault_that_was_removed_behind_our_back_is_a_mismatch(fault):
    judgement = await judged(fault, sabotage=lambda network: network.states.clear())
    assert judgement.verdict is Verdict.MISMATCH


async def test_traffic_of_the_target_itself_is_enough():
    traffic = Counters(packets=50, delayed=50, delay_us_sum=50 * 100_300)
    judgement = await judged(delay(), traffic=traffic)
    assert judgement.verdict is Verdict.CONFIRMED
    assert judgement.asked == "delay 100 ms"
    assert judgement.measured == "delay 100.3 ms, mean of 50 packets (passive)"


@pytest.mark.parametrize(
    ("fault", "traffic", "verdict"),
    [
        (delay(), Counters(50, delayed=50, delay_us_sum=50 * 80_000), Verdict.MISMATCH),
        (delay(), Counters(50, delayed=50, delay_us_sum=50 * 130_000), Verdict.MISMATCH),
        (partition(), Counters(50, dropped=50), Verdict.CONFIRMED),
        (shaping(loss=10), Counters(1000, dropped=97), Verdict.CONFIRMED),
        (shaping(loss=10), Counters(1000, dropped=30), Verdict.MISMATCH),
        (shaping(loss=10), Counters(1000, dropped=0), Verdict.MISMATCH),
        (shaping(loss=10, loss_correlation=50), Counters(1000, dropped=30), Verdict.CONFIRMED),
        (shaping(loss=1), Counters(50, dropped=0), Verdict.INCONCLUSIVE),
        (shaping(loss=100), Counters(50, dropped=50), Verdict.CONFIRMED),
        (shaping(duplicate=20), Counters(1000, duplicated=210), Verdict.CONFIRMED),
        (shaping(corrupt=20), Counters(1000, corrupted=100), Verdict.MISMATCH),
        (shaping(delay_us=10**4, reorder=25), Counters(1000, 750, reordered=250,
         delay_us_sum=750 * 10**4), Verdict.CONFIRMED),
        (shaping(rate=10**6), Counters(500, bytes=410_000), Verdict.CONFIRMED),
        (shaping(rate=10**6), Counters(500, bytes=900_000), Verdict.MISMATCH),
        (shaping(rate=10**6), Counters(500, bytes=9_000), Verdict.INCONCLUSIVE),
        (shaping(rate=10**6), Counters(500), Verdict.INCONCLUSIVE),
    ],
)  # fmt: skip
async def test_numbers_decide(fault, traffic, verdict):
    assert (await judged(fault, traffic=traffic)).verdict is verdict


@pytest.mark.parametrize(
    ("fault", "sent", "verdict"),
    [
        (shaping(["10.0.0.0/8"], loss=100), Counters(2, dropped=2), Verdict.CONFIRMED),
        (shaping(["10.0.0.0/8"], loss=50), Counters(2, dropped=0), Verdict.MISMATCH),
        (partition(["10.0.0.0/8"]), Counters(1, dropped=1), Verdict.CONFIRMED),
        (delay(["10.0.0.0/8"]), Counters(1, delayed=1, delay_us_sum=100_300), Verdict.CONFIRMED),
        (delay(["10.0.0.0/8"]), Counters(1, delayed=1, delay_us_sum=0), Verdict.MISMATCH),
        (delay(["10.0.0.0/8"]), Counters(1, delayed=1, delay_us_sum=10**6), Verdict.INCONCLUSIVE),
        (shaping(["10.0.0.0/8"], rate=10**6), Counters(2, bytes=1400), Verdict.INCONCLUSIVE),
    ],
)
async def test_who_seldom_sends_is_judged_by_all_that_was_counted(fault, sent, verdict):
    """As one that looks a name up, which waits five seconds for each answer."""
    network, clock = FakeNetwork(), FakeClock()
    await NetworkInjector(world(network)).converge(TARGET, [live(fault)], Notes())
    probe, counted = NetworkProbe(world(network, clock)), Counters(bytes=sent.bytes and 0)
    for _ in range(10):
        network.counted[TARGET.id] = {"a/.": (counted := counted + sent)}
        during = await sample(probe, clock, live(fault))
    assert probe.judge(fault, None, during).verdict is verdict


async def test_one_part_that_is_not_felt_spoils_the_whole():
    fault = shaping(delay_us=10_000, loss=50)
    traffic = Counters(1000, delayed=1000, delay_us_sum=10_000_000, dropped=0)
    judgement = await judged(fault, traffic=traffic)
    assert judgement.verdict is Verdict.MISMATCH
    assert judgement.asked == "delay 10 ms, loss 50 %"


def active(**values):
    return Sample(Way.ACTIVE, {"in_force": 1.0, "pings_refused": 0.0, **values})


def test_what_no_qdisc_counts_is_told_by_pings():
    pinged = {"pings_sent": 60.0, "pings_received": 60.0, "packets": 60.0, "rtt_ms": 0.4}
    fault = shaping(FAR, duplicate=50)
    assert judge(fault, None, active(**pinged, pings_duplicated=28.0)).verdict is Verdict.CONFIRMED
    assert judge(fault, None, active(**pinged, pings_duplicated=0.0)).verdict is Verdict.MISMATCH


def test_a_ping_measures_against_the_path_as_it_was_before():
    before = Sample(Way.ACTIVE, {"in_force": 0.0, "pings_received": 5.0, "rtt_ms": 40.0})
    during = active(pings_sent=5.0, pings_received=5.0, rtt_ms=141.0)
    judgement = judge(delay(FAR), before, during)
    assert judgement.verdict is Verdict.CONFIRMED
    assert judgement.measured == "delay 101.0 ms, median of 5 pings (active)"


def test_a_cut_that_lets_pings_through_is_a_mismatch():
    during = active(pings_sent=5.0, pings_received=5.0, dropped=100.0)
    assert judge(partition(FAR), None, during).verdict is Verdict.MISMATCH


def test_a_peer_that_never_answered_proves_nothing():
    during = active(pings_sent=5.0, pings_received=0.0)
    assert judge(partition(FAR, way="in"), None, during).verdict is Verdict.INCONCLUSIVE


def test_a_network_is_no_single_address():
    assert reachable(delay(["10.0.0.0/8", "fd00::7"])) == ("fd00::7",)
    assert reachable(delay(["10.0.0.0/8"])) == ()


DUAL = ["10.0.0.7", "fd00::7", "10.0.0.8", "fd00::8"]


@pytest.mark.parametrize("fault", [delay(DUAL), partition(DUAL), partition(DUAL, way="in")])
async def test_of_each_family_one_address_is_pinged(fault):
    assert reachable(fault) == ("10.0.0.7", "fd00::7")
    assert (await judged(fault)).verdict is Verdict.CONFIRMED


@pytest.mark.parametrize("family", ["10.", "fd00:"])
@pytest.mark.parametrize("make", [delay, partition])
async def test_what_is_felt_by_one_family_alone_is_a_mismatch(make, family):
    felt = make([each for each in DUAL if each.startswith(family)])
    half = merge([live(felt)], {})
    judgement = await judged(
        make(DUAL), sabotage=lambda network: network.states.update({TARGET.id: half})
    )
    assert judgement.verdict is Verdict.MISMATCH


def test_nobody_answers_pings_at_the_address_of_a_service():
    ends = (Endpoint(host="10.96.0.9/32", translated=True), Endpoint(host="10.0.0.7/32"))
    cut = WantedCut(way="out", peers=ends)
    assert reachable(NetworkFault(action="partition", cuts=(cut,))) == ("10.0.0.7",)


async def test_a_target_that_is_among_its_peers_is_no_witness():
    network, clock = FakeNetwork(), FakeClock()
    network.own[TARGET.id] = FAR
    asked = partition([*FAR, "10.0.0.8"])
    assert reachable(asked, FAR) == ("10.0.0.8",)
    await NetworkInjector(world(network)).converge(TARGET, [live(partition(FAR))], Notes())
    seen = await sample(NetworkProbe(world(network, clock)), clock, live(partition(FAR)))
    assert judge(partition(FAR), None, seen).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("count", "delay_ms", "verdict"),
    [
        (1, 14.0, Verdict.INCONCLUSIVE),
        (1, 10.0, Verdict.CONFIRMED),
        (1, 2.0, Verdict.MISMATCH),
        (3, 14.0, Verdict.MISMATCH),
    ],
)
def test_one_packet_that_waited_too_long_is_no_mismatch(count, delay_ms, verdict):
    values = {"in_force": 1.0, "packets": count, "delayed": count, "delay_ms": delay_ms}
    asked = delay(delay_us=10_000)
    assert judge(asked, None, Sample(Way.PASSIVE, values)).verdict is verdict
