import asyncio

import pytest

from squall.clock import FakeClock
from squall.faults.file_io.injector import FileInjector
from squall.faults.file_io.judgement import judge
from squall.faults.file_io.probe import FileProbe
from squall.faults.file_io.tests.faults import (
    DATA,
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
from squall.injection.contract import Sample, Verdict, Way
from squall.injection.laws import Notes
from squall.injection.world.fake_files import FakeFiles
from squall.injection.world.files import FileCounters, Visit


async def sample(probe, clock, wanted):
    """Sample while the clock goes on by itself."""
    task = asyncio.ensure_future(probe.sample(TARGET, wanted))
    while not task.done():
        await clock.advance(0.1)
    return await task


async def judged(fault, *, sabotage=None, traffic=None, paths=(f"{DATA}/a.log",)):
    """What the probe makes of a fault: before it, then during it, on an idle target or not."""
    files, clock = FakeFiles(), FakeClock()
    files.paths = list(paths)
    here = world(files, clock)
    probe, wanted = FileProbe(here), live(fault)
    before = await sample(probe, clock, wanted)
    await FileInjector(here).converge(TARGET, [wanted], Notes())
    if sabotage:
        sabotage(files)
    task = asyncio.ensure_future(probe.sample(TARGET, wanted))
    await clock.advance(0.01)
    if traffic:
        files.counted[TARGET.id] = {"a/.": traffic}
    while not task.done():
        await clock.advance(0.1)
    return probe.judge(fault, before, await task)


@pytest.mark.parametrize(
    "fault",
    [
        latency(),
        latency(10, methods=("read",)),
        latency(5000),
        failing(),
        failing(28, path=f"{DATA}/*.log"),
        lying(size=1),
        mistaken(),
        mistaken(methods=("read",)),
    ],
)
async def test_where_nothing_flows_a_file_is_read_and_confirms(fault):
    judgement = await judged(fault)
    assert judgement.verdict is Verdict.CONFIRMED, judgement
    assert "active" in judgement.measured


@pytest.mark.parametrize(
    "fault", [latency(methods=("write",)), failing(methods=("fsync",)), full(), blackout()]
)
async def test_what_only_a_change_would_show_is_not_tried(fault):
    judgement = await judged(fault)
    assert judgement.verdict is not Verdict.MISMATCH
    if fault.methods:
        assert judgement.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("fault", [latency(), failing(), lying(size=1), mistaken()])
async def test_without_a_file_to_try_it_on_nothing_is_confirmed(fault):
    judgement = await judged(fault, paths=())
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "no file to try it on" in judgement.measured


@pytest.mark.parametrize(
    "fault", [latency(), failing(), lying(size=1), mistaken(), full(), blackout()]
)
async def test_a_fault_that_was_removed_behind_our_back_is_a_mismatch(fault):
    judgement = await judged(fault, sabotage=lambda files: files.states.clear())
    assert judgement.verdict is Verdict.MISMATCH


async def test_requests_of_the_target_itself_are_enough():
    traffic = FileCounters(matched=50, delayed=50, delay_us_sum=50 * 100_300)
    judgement = await judged(latency(methods=("read",)), traffic=traffic)
    assert judgement.verdict is Verdict.CONFIRMED
    assert judgement.asked == "latency 100 ms in /var/lib/data for read"
    assert judgement.measured == "latency 100.3 ms, mean of 50 requests (passive)"


@pytest.mark.parametrize(
    ("counted", "verdict"),
    [
        (FileCounters(matched=1, delayed=1, delay_us_sum=100_300), Verdict.CONFIRMED),
        (FileCounters(matched=1), Verdict.MISMATCH),
        (FileCounters(), Verdict.INCONCLUSIVE),
    ],
)
async def test_a_request_before_we_looked_counts_where_nothing_can_be_tried(counted, verdict):
    files, clock = FakeFiles(), FakeClock()
    wanted = live(latency(methods=("fsync",)))
    await FileInjector(world(files)).converge(TARGET, [wanted], Notes())
    files.counted[TARGET.id] = {"a/.": counted}
    seen = await sample(FileProbe(world(files, clock)), clock, wanted)
    assert judge(wanted.fault, None, seen).verdict is verdict


def slow(count, milliseconds, matched=0):
    us = int(count * milliseconds * 1000)
    return FileCounters(matched=matched or count, delayed=count, delay_us_sum=us)


@pytest.mark.parametrize(
    ("fault", "traffic", "verdict"),
    [
        (latency(), slow(50, 80), Verdict.MISMATCH),
        (latency(), slow(50, 130), Verdict.MISMATCH),
        (latency(), slow(50, 109), Verdict.CONFIRMED),
        (latency(percent=40), slow(410, 100, 1000), Verdict.CONFIRMED),
        (latency(percent=40), slow(100, 100, 1000), Verdict.MISMATCH),
        (latency(percent=40), FileCounters(1000), Verdict.MISMATCH),
        (latency(percent=1), FileCounters(30), Verdict.INCONCLUSIVE),
        (latency(), FileCounters(50), Verdict.MISMATCH),
        (failing(), FileCounters(50, failed=50), Verdict.CONFIRMED),
        (failing(), FileCounters(50), Verdict.MISMATCH),
        (failing(percent=50), FileCounters(1000, failed=510), Verdict.CONFIRMED),
        (failing(percent=50), FileCounters(1000, failed=1000), Verdict.MISMATCH),
        (lying(uid=1), FileCounters(50, overridden=50), Verdict.CONFIRMED),
        (mistaken(), FileCounters(50, mistaken=20), Verdict.CONFIRMED),
        (full(9), FileCounters(50, failed=1), Verdict.CONFIRMED),
        (full(9), FileCounters(50), Verdict.INCONCLUSIVE),
        (blackout(), FileCounters(50), Verdict.INCONCLUSIVE),
        (blackout(), FileCounters(50, lost_bytes=9), Verdict.CONFIRMED),
    ],
)
async def test_numbers_decide(fault, traffic, verdict):
    judgement = await judged(fault, traffic=traffic)
    assert judgement.verdict is verdict, judgement


async def test_what_our_own_call_does_not_feel_is_a_mismatch_whatever_is_counted():
    values = {"in_force": 1.0, "matched": 3.0, "calls": 2.0}
    felt = {**values, "delayed": 3.0, "delay_ms": 100.0, "felt_ms": 0.2}
    assert judge(latency(), None, Sample(Way.ACTIVE, felt)).verdict is Verdict.MISMATCH
    failed = {**values, "failed": 3.0, "calls_failed": 2.0, "calls_failed_as_asked": 0.0}
    assert judge(failing(), None, Sample(Way.ACTIVE, failed)).verdict is Verdict.MISMATCH
    told = {**values, "overridden": 3.0, "attributes_told": 1.0, "attributes_true": 1.0}
    assert judge(lying(size=1), None, Sample(Way.ACTIVE, told)).verdict is Verdict.MISMATCH


async def test_a_call_that_waits_longer_than_asked_is_a_mismatch():
    values = {"in_force": 1.0, "matched": 1.0, "calls": 1.0, "waiting_ms": 1500.0}
    assert judge(latency(10), None, Sample(Way.ACTIVE, values)).verdict is Verdict.MISMATCH
    assert judge(latency(9000), None, Sample(Way.ACTIVE, values)).verdict is Verdict.CONFIRMED


@pytest.mark.parametrize(
    ("count", "milliseconds", "verdict"),
    [
        (1, 14.0, Verdict.INCONCLUSIVE),
        (1, 10.0, Verdict.CONFIRMED),
        (1, 2.0, Verdict.MISMATCH),
        (3, 14.0, Verdict.MISMATCH),
    ],
)
def test_one_request_that_waited_too_long_is_no_mismatch(count, milliseconds, verdict):
    values = {"in_force": 1.0, "matched": count, "delayed": count, "delay_ms": milliseconds}
    assert judge(latency(10), None, Sample(Way.PASSIVE, values)).verdict is verdict


async def test_where_chance_decides_we_go_there_until_something_can_be_said():
    files, clock = FakeFiles(), FakeClock()
    files.paths = [f"{DATA}/a"]
    wanted = live(failing(percent=99))
    await FileInjector(world(files)).converge(TARGET, [wanted], Notes())
    seen = await sample(FileProbe(world(files, clock)), clock, wanted)
    assert seen.values["matched"] >= 20
    assert judge(wanted.fault, None, seen).verdict is Verdict.CONFIRMED


class Patient(FakeFiles):
    """Remembers how long somebody was ready to wait."""

    longest = 0.0

    async def visit(self, target, volume, path, methods, *, within_seconds):
        self.longest = max(self.longest, within_seconds)
        return Visit()


async def test_before_a_fault_nobody_waits():
    files, clock = Patient(), FakeClock()
    before = await sample(FileProbe(world(files, clock)), clock, live(latency()))
    assert before.values == {"in_force": 0.0}
    assert files.longest < 0.005
