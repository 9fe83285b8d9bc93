import pytest

from squall.api.cluster import NODE_FAULT
from squall.errors import TryAgain
from squall.node.tests.bench import Bench


@pytest.fixture
async def bench(tmp_path):
    bench = Bench(tmp_path)
    await bench.renew()
    await bench.pod()
    yield bench
    await bench.close()


async def test_a_strike_is_done_once_and_proved(bench):
    await bench.start()
    await bench.fault(oneShot=True)
    await bench.pass_seconds(30)
    assert bench.walls.struck == ["default/web"]
    record = bench.record()
    assert (record["phase"], record["final"]) == ("Injected", True)
    assert record["proof"]["verdict"] == "Confirmed"
    await bench.restart()
    await bench.pass_seconds(30)
    assert bench.walls.struck == ["default/web"]


async def test_what_was_struck_is_given_a_moment_before_it_is_judged(bench):
    bench.walls.unseen_looks = 2
    await bench.start()
    await bench.fault(oneShot=True)
    told = {str((bench.record().get("proof") or {}).get("verdict"))}
    for _ in range(5):
        await bench.pass_seconds(1)
        told.add(str((bench.record().get("proof") or {}).get("verdict")))
    assert bench.walls.unseen_looks == 0
    assert "Confirmed" in told
    assert "Mismatch" not in told


async def test_a_strike_that_is_never_seen_is_a_mismatch(bench):
    bench.walls.unseen_looks = 1000
    await bench.start()
    await bench.fault(oneShot=True)
    await bench.pass_seconds(30)
    assert bench.record()["proof"]["verdict"] == "Mismatch"


async def test_a_strike_that_ended_badly_is_unknown_and_not_repeated(bench):
    bench.walls.strike_raises = TryAgain("no answer")
    await bench.start()
    await bench.fault(oneShot=True)
    await bench.pass_seconds(30)
    assert bench.walls.struck == ["default/web"]
    assert bench.record()["proof"]["verdict"] == "Unknown"
    assert bench.record()["final"]


async def test_stopping_a_strike_takes_nothing_back_and_lets_the_experiment_end(bench):
    await bench.start()
    await bench.fault(oneShot=True)
    await bench.change(desiredPhase="Stop")
    assert bench.record()["phase"] == "Not Injected"
    assert bench.walls.struck == ["default/web"]


async def test_a_stopped_agent_does_not_call_a_strike_undone(bench):
    await bench.start()
    await bench.fault(oneShot=True)
    await bench.stop()
    assert bench.record()["phase"] == "Injected"


async def test_a_halt_refuses_strikes_that_were_not_done(bench):
    await bench.start()
    await bench.fault("f1", oneShot=True)
    await bench.halt()
    await bench.fault("f2", oneShot=True)
    assert bench.walls.struck == ["default/web"]
    assert bench.record("f1")["proof"]["verdict"] == "Confirmed"
    assert bench.record("f2")["proof"]["verdict"] == "Interrupted"


async def test_a_target_that_ended_in_a_strike_nobody_saw_finished_is_unknown_not_gone(bench):
    await bench.started_to_die_before(None)
    bench.fate.die_before = bench.fate.changes + 3  # noted, marked, struck: it dies right after
    await bench.fault(oneShot=True)
    assert bench.walls.struck == ["default/web"]
    await bench.end_container("web-1")
    await bench.revived()
    await bench.pass_seconds(5)
    assert bench.record()["proof"]["verdict"] == "Unknown"
    assert bench.record()["final"]


async def test_a_strike_that_nobody_measured_is_inconclusive(bench):
    await bench.start()
    await bench.fault(oneShot=True)
    await bench.kill()
    unproved = [{**bench.record(), "proof": None}]
    where = (NODE_FAULT, "squall", "f1")
    await bench.cluster.patch(*where, {"status": {"targets": unproved}}, subresource="status")
    await bench.start()
    await bench.pass_seconds(1)
    assert bench.record()["proof"]["verdict"] == "Inconclusive"
    assert bench.walls.struck == ["default/web"]


async def test_killed_anywhere_around_a_strike_it_is_never_done_twice(tmp_path):
    for at in range(100):
        bench = Bench(tmp_path / str(at))
        await bench.renew()
        await bench.pod()
        await bench.started_to_die_before(at)
        if not bench.dead:
            await bench.fault(oneShot=True)
        died, struck = bench.dead, len(bench.walls.struck)
        await bench.revived()
        if (NODE_FAULT, "squall", "f1") not in bench.cluster.objects:
            await bench.fault(oneShot=True)
        await bench.pass_seconds(5)
        assert len(bench.walls.struck) <= 1
        assert bench.record()["final"]
        verdict = bench.record()["proof"]["verdict"]
        assert verdict in {"Confirmed", "Unknown"}
        assert len(bench.walls.struck) == 1 or verdict == "Unknown"
        await bench.close()
        if not died:
            break
    assert struck == 1
    assert at >= 5
