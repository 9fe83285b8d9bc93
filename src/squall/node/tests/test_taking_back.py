import asyncio
from datetime import timedelta

import pytest

from squall.api.cluster import HALT, LEASE
from squall.node.tests.bench import Bench


@pytest.fixture
async def bench(tmp_path):
    bench = Bench(tmp_path)
    await bench.renew()
    await bench.pod()
    yield bench
    await bench.close()


async def test_silence_of_the_controller_restores_and_that_generation_is_not_begun_again(bench):
    await bench.start()
    await bench.fault()
    await bench.pass_seconds(9, renewing=False)
    assert bench.colors() == ["red"]
    await bench.pass_seconds(2, renewing=False)
    assert bench.colors() == []
    record = bench.record()
    assert (record["phase"], record["final"]) == ("Not Injected", True)
    assert record["proof"]["verdict"] == "Interrupted"
    await bench.pass_seconds(5)
    await bench.restart()
    assert bench.colors() == []
    await bench.change(faults={".": {"color": "blue"}})
    assert bench.colors() == ["blue"], "another generation is another fault"


async def test_a_lease_that_is_only_listed_again_is_silence(bench):
    await bench.start()
    await bench.fault()
    for _ in range(11):
        lease = await bench.cluster.list(LEASE)
        bench.agent._silence.saw(lease[0], bench.clock.boottime())
        await bench.pass_seconds(1, renewing=False)
    assert bench.colors() == []


async def test_a_renewed_lease_keeps_faults_alive(bench):
    await bench.start()
    await bench.fault()
    await bench.pass_seconds(40)
    assert bench.colors() == ["red"]


async def test_a_fault_that_arrives_in_silence_waits_for_the_controller(bench):
    await bench.start()
    await bench.pass_seconds(11, renewing=False)
    await bench.fault()
    assert bench.colors() == []
    assert "waiting" in bench.record()["message"]
    assert not bench.record()["final"]
    await bench.renew()
    await bench.rest()
    assert bench.colors() == ["red"]


async def test_a_deadline_heals_even_when_nobody_stops_the_fault(bench):
    await bench.start()
    await bench.fault(deadline=(bench.clock.now() + timedelta(seconds=5)).isoformat())
    await bench.pass_seconds(4)
    assert bench.colors() == ["red"]
    await bench.pass_seconds(1)
    assert bench.colors() == []
    assert bench.record()["proof"]["verdict"] == "Interrupted"


async def test_a_stepped_wall_clock_does_not_move_a_deadline(bench):
    await bench.start()
    await bench.fault(deadline=(bench.clock.now() + timedelta(seconds=5)).isoformat())
    bench.clock.step(timedelta(hours=-3))
    await bench.restart()
    await bench.pass_seconds(6)
    assert bench.colors() == []


async def test_hold_outlives_silence_and_ends_at_the_deadline(bench):
    await bench.start()
    deadline = (bench.clock.now() + timedelta(seconds=30)).isoformat()
    await bench.fault(whenCutOff="hold", deadline=deadline)
    await bench.pass_seconds(29, renewing=False)
    assert bench.colors() == ["red"]
    await bench.pass_seconds(1, renewing=False)
    assert bench.colors() == []


async def test_hold_without_a_duration_is_refused(bench):
    await bench.start()
    await bench.fault(whenCutOff="hold")
    assert bench.colors() == []
    assert bench.record()["final"]
    assert "needs a duration" in bench.record()["message"]


async def test_halt_restores_all_at_once_and_refuses_new_faults_until_released(bench):
    await bench.start()
    await bench.fault("f1")
    await bench.halt("pager")
    assert bench.colors() == []
    await bench.fault("f2")
    assert bench.colors() == []
    for name in ("f1", "f2"):
        assert bench.record(name)["proof"]["verdict"] == "Interrupted"
        assert bench.record(name)["message"] == "halted: pager"
        assert bench.record(name)["final"]
    await bench.release()
    await bench.fault("f3")
    assert [color for source, color in bench.walls.coats["default/web"]] == ["red"]
    assert "f3" in bench.walls.coats["default/web"][0][0]


async def test_nothing_begins_before_it_is_known_that_nothing_is_halted(bench):
    asked = asyncio.Event()
    watch = bench.cluster.watch

    async def slow(resource, namespace=None, *, fields=""):
        if resource == HALT:
            await asked.wait()
        async for event in watch(resource, namespace, fields=fields):
            yield event

    bench.cluster.watch = slow
    await bench.halt()
    await bench.fault("f1")
    await bench.fault("f2", oneShot=True)
    await bench.start()
    assert bench.colors() == []
    asked.set()
    await bench.rest()
    assert (bench.colors(), bench.walls.struck, bench.journal.touched()) == ([], [], [])
    assert bench.record()["proof"]["verdict"] == "Interrupted"
