import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from squall.api.cluster import NODE_FAULT, POD
from squall.api.policy import Policy
from squall.errors import TargetGone, TryAgain, Unsupported
from squall.node.tests.bench import Bench
from squall.node.tests.paint import PAINT


@pytest.fixture
async def bench(tmp_path):
    bench = Bench(tmp_path)
    await bench.renew()
    await bench.pod()
    yield bench
    await bench.close()


def states(bench, name="f1"):
    return {record["id"]: record["phase"] for record in bench.records(name)}


async def test_a_fault_is_injected_proved_and_taken_back(bench):
    await bench.start()
    await bench.fault(color="red")
    assert bench.colors() == ["red"]
    record = bench.record()
    assert (record["phase"], record["proof"]["verdict"]) == ("Injected", "Confirmed")
    assert record["proof"]["before"]["coats"] == 0
    assert record["injectedAt"]
    await bench.change(desiredPhase="Stop")
    assert bench.colors() == []
    assert (bench.record()["phase"], bench.record()["final"]) == ("Not Injected", False)
    assert bench.record()["recoveredAt"]
    assert bench.record()["proof"]["after"]["coats"] == 0
    assert bench.journal.touched() == []


async def test_the_status_says_which_generation_it_is_about(bench):
    await bench.start()
    await bench.fault()
    await bench.change(desiredPhase="Stop")
    status = bench.cluster.objects[NODE_FAULT, "squall", "f1"]["status"]
    assert status["observedGeneration"] == 2


async def test_faults_on_one_target_are_merged_oldest_first_and_peel_off_in_any_order(bench):
    await bench.start()
    for name, color in (("f1", "red"), ("f2", "blue"), ("f3", "green")):
        await bench.fault(name, color)
    assert bench.colors() == ["red", "blue", "green"]
    await bench.change("f2", desiredPhase="Stop")
    assert bench.colors() == ["red", "green"]
    await bench.delete("f1")
    assert bench.colors() == ["green"]


async def test_an_older_fault_that_comes_later_goes_first(bench):
    await bench.start()
    await bench.fault("f1", "red")
    await bench.fault("f2", "blue", age=timedelta(hours=1))
    assert bench.colors() == ["blue", "red"]


async def test_a_deleted_fault_is_forgotten(bench):
    await bench.start()
    await bench.fault()
    await bench.delete()
    assert bench.journal.faults() == []
    assert bench.journal.touched() == []


async def test_a_cancelled_agent_leaves_faults_and_the_next_one_takes_them_over(bench):
    await bench.start()
    await bench.fault()
    changes = bench.fate.changes
    injected = bench.record()["injectedAt"]
    await bench.kill()
    assert bench.colors() == ["red"]
    await bench.start()
    assert bench.colors() == ["red"]
    assert bench.record()["injectedAt"] == injected
    assert bench.record()["proof"]["before"]["coats"] == 0
    assert bench.fate.changes <= changes + 1  # the boot is noted; nothing is done twice
    await bench.change(desiredPhase="Stop")
    assert bench.colors() == []


async def test_what_was_deleted_while_no_agent_ran_is_taken_back_at_the_next_start(bench):
    await bench.start()
    await bench.fault()
    await bench.kill()
    await bench.delete()
    await bench.start()
    assert bench.walls.snapshot()[:2] == ({}, set())


async def test_a_stopped_agent_restores_and_says_so(bench):
    await bench.start()
    await bench.fault()
    await bench.stop()
    assert bench.colors() == []
    assert bench.record()["phase"] == "Not Injected"
    await bench.start()
    assert bench.colors() == ["red"], "the experiment still runs"


async def test_a_target_that_is_gone_counts_as_restored(bench):
    await bench.start()
    await bench.fault()
    await bench.end_container("web-1")
    await bench.cluster.delete(POD, "default", "web")
    await bench.change(desiredPhase="Stop")
    assert bench.record()["phase"] == "Not Injected"
    assert bench.journal.touched() == []
    assert bench.walls.signs == set(), "what hangs outside of the target is taken back all the same"


async def test_a_target_that_still_runs_is_not_taken_for_gone(bench):
    await bench.start()
    await bench.fault()
    pids, bench.walls.pids = bench.walls.pids, set()
    await bench.change(desiredPhase="Stop")
    assert bench.record()["phase"] == "Injected"
    assert len(bench.journal.touched()) == 1
    bench.walls.pids = pids
    await bench.pass_seconds(1)
    assert bench.record()["phase"] == "Not Injected"
    assert bench.colors() == []


async def test_a_target_that_was_never_there_is_final(bench):
    await bench.start()
    await bench.fault(targets=[bench.target("nobody")])
    assert bench.record()["final"]
    assert "nobody" in bench.record()["message"]


async def test_a_pod_whose_container_was_restarted_is_followed(bench):
    await bench.start()
    await bench.fault()
    await bench.end_container("web-1")
    bench.walls.coats.clear()
    await bench.pod("web", container="web-2")
    await bench.rest()
    assert bench.colors() == ["red"]
    await bench.change(desiredPhase="Stop")
    assert bench.walls.snapshot()[:2] == ({}, set())


async def test_a_stop_between_two_containers_takes_back_what_it_can_and_waits_for_the_rest(bench):
    await bench.start()
    await bench.fault()
    await bench.end_container("web-1")
    await bench.change(desiredPhase="Stop")
    assert bench.walls.signs == set()
    assert bench.record()["phase"] == "Injected"
    assert "waiting" in bench.record()["message"]
    await bench.pod("web", container="web-2")
    await bench.pass_seconds(1)
    assert bench.walls.snapshot()[:2] == ({}, set())
    assert bench.record()["phase"] == "Not Injected"


async def test_a_container_that_was_restarted_is_another_target(bench):
    await bench.start()
    await bench.fault(targets=[bench.target(id="default/web/main")])
    assert bench.walls.coats
    await bench.end_container("web-1")
    bench.walls.coats.clear()
    await bench.pod("web", container="web-2")
    await bench.rest()
    assert not bench.walls.coats
    again = bench.target(id="default/web/main", containerId="squall://web-2", incarnation=1)
    await bench.change(targets=[again])
    assert "default/web/main" in bench.walls.coats
    assert (bench.record()["phase"], bench.record()["incarnation"]) == ("Injected", 1)
    await bench.change(desiredPhase="Stop")
    assert bench.walls.snapshot()[:2] == ({}, set())


async def test_what_the_host_cannot_do_is_reported_and_takes_nothing_else_with_it(bench):
    bench.walls.raises["blue"] = Unsupported("no blue on this host; load the module")
    await bench.start()
    await bench.fault("f1", "red")
    await bench.fault("f2", "blue")
    assert bench.colors() == ["red"]
    assert bench.record("f2")["final"]
    assert bench.record("f2")["message"] == "no blue on this host; load the module"
    assert bench.record("f2")["phase"] == "Not Injected"


@pytest.mark.parametrize("bad", range(4))
async def test_of_several_at_once_only_what_cannot_be_is_refused(bench, bad):
    colors = ["red", "green", "white", "black"]
    colors[bad] = "blue"
    bench.walls.raises["blue"] = Unsupported("no blue on this host; load the module")
    for number, color in enumerate(colors):
        await bench.fault(f"f{number}", color)
    await bench.start()
    assert sorted(bench.colors()) == sorted(color for color in colors if color != "blue")
    assert [bench.record(f"f{number}")["final"] for number in range(4)] == [
        number == bad for number in range(4)
    ]


async def test_not_now_is_tried_again(bench):
    bench.walls.raises["red"] = TryAgain("paint shop is closed")
    await bench.start()
    await bench.fault()
    assert bench.record()["message"] == "paint shop is closed"
    assert not bench.record()["final"]
    bench.walls.raises.clear()
    await bench.pass_seconds(2)
    assert bench.colors() == ["red"]
    assert bench.record()["message"] == ""


async def test_a_bug_in_a_room_is_named_and_tried_again(bench):
    bench.walls.raises["red"] = RuntimeError("oops")
    await bench.start()
    await bench.fault()
    assert "bug" in bench.record()["message"]
    bench.walls.raises.clear()
    await bench.pass_seconds(2)
    assert bench.record()["phase"] == "Injected"


async def test_a_room_that_cannot_be_loaded_takes_nothing_else_with_it(bench, caplog):
    broken = replace(PAINT, injector="squall.nowhere:Injector", probe="squall.nowhere:Probe")
    bench.kinds["BrokenChaos"] = broken
    await bench.start()
    experiment = {"kind": "BrokenChaos", "namespace": "d", "name": "b", "uid": "x-b"}
    created = bench.clock.now().isoformat()
    await bench.fault("broken", experiment=experiment | {"created": created})
    await bench.fault("f1")
    assert bench.colors() == ["red"]
    assert "squall.nowhere" in bench.record("broken")["message"]
    assert "BrokenChaos cannot act" in caplog.text


async def test_a_stuck_target_holds_up_nobody_else(bench):
    await bench.pod("db")
    bench.walls.stuck["default/web"] = asyncio.Event()
    await bench.start()
    await bench.fault(targets=[bench.target("web"), bench.target("db")])
    await bench.pass_seconds(1)
    assert bench.colors("db") == ["red"]
    assert states(bench) == {"default/web": "Not Injected", "default/db": "Injected"}
    bench.walls.stuck["default/web"].set()
    await bench.rest()
    await bench.pass_seconds(1)
    assert states(bench) == {"default/web": "Injected", "default/db": "Injected"}


async def test_a_target_that_is_taken_off_stays_in_the_status_until_it_is_restored(bench):
    await bench.pod("db")
    await bench.start()
    await bench.fault(targets=[bench.target("web"), bench.target("db")])
    bench.walls.busy.add("default/db")
    await bench.change(targets=[bench.target("web")])
    assert states(bench) == {"default/web": "Injected", "default/db": "Injected"}
    bench.walls.busy.clear()
    await bench.pass_seconds(1)
    assert states(bench) == {"default/web": "Injected"}
    assert bench.colors("db") == []


async def test_many_targets_make_few_writes(bench):
    names = [f"p{n}" for n in range(40)]
    for name in names:
        await bench.pod(name)
    await bench.start()
    bench.cluster.calls.clear()
    await bench.fault(targets=[bench.target(name) for name in names])
    await bench.pass_seconds(1)
    assert set(states(bench).values()) == {"Injected"}
    assert len([call for call in bench.cluster.calls if call[0] == "patch"]) <= 5
    assert len(bench.processes.asked) <= 1 + len(names)


async def test_targets_that_are_ready_one_after_the_other_share_a_write(bench):
    names = [f"p{n}" for n in range(5)]
    for name in names:
        await bench.pod(name)
        bench.walls.stuck[f"default/{name}"] = asyncio.Event()
    await bench.start()
    bench.cluster.calls.clear()
    await bench.fault(targets=[bench.target(name) for name in names])
    for name in names:
        bench.walls.stuck[f"default/{name}"].set()
        await bench.rest()
    assert set(states(bench).values()) == {"Injected"}
    assert len([call for call in bench.cluster.calls if call[0] == "patch"]) <= 2


async def test_a_fault_that_somebody_takes_away_turns_to_mismatch_and_is_put_back(bench):
    await bench.start()
    await bench.fault()
    await bench.pass_seconds(2)
    bench.walls.coats.clear()
    verdicts = []
    for _ in range(8):
        await bench.pass_seconds(1)
        verdicts.append(bench.record()["proof"]["verdict"])
    assert "Mismatch" in verdicts[:5]
    assert verdicts[-1] == "Confirmed"
    assert bench.colors() == ["red"]


async def test_a_target_on_the_network_of_its_node_is_refused(bench):
    await bench.start()
    await bench.fault(targets=[bench.target(hostNetwork=True)])
    assert bench.colors() == []
    assert "network of its node" in bench.record()["message"]
    await bench.kill()
    bench.policy = Policy(allow_host_network=True)
    await bench.start()
    assert bench.colors() == ["red"]


async def test_a_fault_for_another_node_is_none_of_ours(bench):
    await bench.start()
    await bench.fault(nodeName="n2")
    assert bench.colors() == []
    assert bench.records() == []


async def test_an_api_that_is_down_keeps_statuses_for_later(bench):
    await bench.start()
    bench.cluster.down = True
    bench.cluster.down = False
    await bench.fault()
    bench.cluster.down = True
    bench.walls.coats.clear()
    await bench.pass_seconds(4, renewing=False)
    bench.cluster.down = False
    await bench.pass_seconds(3)
    assert bench.record()["proof"]["verdict"] in {"Mismatch", "Confirmed"}


async def test_a_striker_that_finds_nothing_to_strike_says_so(bench):
    bench.walls.strike_raises = TargetGone("default/web is gone")
    await bench.start()
    await bench.fault(oneShot=True)
    assert bench.record()["final"]
    assert bench.record()["message"] == "default/web is gone"


@pytest.mark.parametrize(("color", "visits"), [("red", 1), ("chameleon", 4)])
async def test_what_hangs_on_the_world_outside_is_converged_again(bench, color, visits):
    await bench.start()
    await bench.fault(color=color)
    for _ in range(16):
        await bench.renew()
        await bench.clock.advance(1)
    assert bench.walls.visits["default/web"] == visits
    await bench.change(desiredPhase="Stop")
    assert bench.colors() == []


@pytest.mark.parametrize("how", ["stopped", "halted", "silent", "deleted"])
async def test_a_full_disk_keeps_nobody_from_restoring(bench, how):
    await bench.start()
    await bench.fault("f1", "red")
    await bench.fault("f2", "blue")
    bench.journal._db.execute("PRAGMA query_only = ON")
    if how == "stopped":
        await bench.change("f1", desiredPhase="Stop")
        assert bench.colors() == ["blue"]
        await bench.change("f2", desiredPhase="Stop")
    elif how == "halted":
        await bench.halt()
    elif how == "silent":
        await bench.pass_seconds(61, renewing=False)
    else:
        await bench.delete("f2")
        await bench.delete("f1")
    assert bench.colors() == []
    assert not bench.dead


async def test_on_a_full_disk_nothing_begins_until_there_is_room(bench):
    await bench.start()
    bench.journal._db.execute("PRAGMA query_only = ON")
    await bench.fault()
    assert bench.colors() == []
    assert "cannot be written" in bench.record()["message"]
    bench.journal._db.execute("PRAGMA query_only = OFF")
    await bench.pass_seconds(2)
    assert bench.colors() == ["red"]
    assert bench.record()["phase"] == "Injected"
