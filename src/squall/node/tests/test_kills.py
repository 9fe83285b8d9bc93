"""The agent is killed before every write of its journal and every change of the world."""

import pytest

from squall.api.cluster import NODE_FAULT
from squall.node.recover import recover
from squall.node.tests.bench import Bench
from squall.node.tests.paint import PAINT

CLEAN: object = ({}, set(), {"default/web": "moss"})


async def lived(folder, at):
    """A node whose agent died before the n-th change of a life with two faults."""
    bench = Bench(folder / str(at))
    await bench.renew()
    await bench.pod()
    await bench.started_to_die_before(at)
    for act in (
        lambda: bench.fault("f1", "red"),
        lambda: bench.fault("f2", "blue"),
        lambda: bench.change("f1", desiredPhase="Stop"),
        lambda: bench.change("f2", faults={".": {"color": "green"}}),
        bench.halt,
    ):
        if bench.dead:
            break
        await act()
    return bench, bench.dead


async def every_kill(folder):
    for at in range(500):
        bench, died = await lived(folder, at)
        bench.fate.die_before = None
        yield bench
        await bench.close()
        if not died:
            assert at >= 15
            return


async def test_killed_anywhere_the_next_agent_makes_it_what_the_api_says(tmp_path):
    async for bench in every_kill(tmp_path):
        await bench.revived()
        await bench.pass_seconds(1)
        running = [
            obj["spec"]
            for obj in bench.cluster.objects.values()
            if obj["kind"] == "NodeFault" and obj["spec"]["desiredPhase"] == "Run"
        ]
        halted = any(obj["kind"] == "Halt" for obj in bench.cluster.objects.values())
        wanted = [] if halted else [spec["faults"]["."]["color"] for spec in running]
        assert bench.colors() == wanted
        assert bench.walls.signs == ({"default/web"} if wanted else set())


async def test_killed_anywhere_the_next_agent_restores_all_when_nobody_renews(tmp_path):
    async for bench in every_kill(tmp_path):
        await bench.revived()
        await bench.pass_seconds(11, renewing=False)
        assert bench.walls.snapshot() == CLEAN
        assert bench.journal.touched() == []


async def test_killed_anywhere_recover_restores_from_the_journal_alone(tmp_path):
    async for bench in every_kill(tmp_path):
        await bench.kill()
        bench.cluster.down = True
        journal = bench.open_journal()
        outcomes = await recover(journal, {"PaintChaos": PAINT}, bench.world, bench.processes)
        left = journal.touched()
        journal.close()
        assert left == []
        assert all(outcome.clean for outcome in outcomes)
        assert bench.walls.snapshot() == CLEAN
        bench.cluster.down = False
        await bench.start()
        await bench.pass_seconds(1)
        if (fault := bench.cluster.objects.get((NODE_FAULT, "squall", "f1"))) and outcomes:
            assert fault["spec"]["desiredPhase"] == "Stop" or bench.record("f1")["final"]


async def test_killed_anywhere_then_rebooted_what_outlives_a_reboot_is_taken_back(tmp_path):
    async for bench in every_kill(tmp_path):
        await bench.kill()
        bench.boot_id = "boot-2"
        bench.walls.coats.clear()
        bench.walls.pids.clear()
        bench.processes.running.clear()
        for name in [k for k in bench.cluster.objects if k[0].kind in {"NodeFault", "Halt", "Pod"}]:
            del bench.cluster.objects[name]
        await bench.start()
        assert bench.walls.signs == set()


@pytest.mark.parametrize("spoil", ["truncate", "garbage", "remove"])
async def test_a_journal_that_was_lost_is_begun_anew_and_the_api_still_heals(tmp_path, spoil):
    bench = Bench(tmp_path)
    await bench.renew()
    await bench.pod()
    await bench.start()
    await bench.fault()
    await bench.kill()
    file = tmp_path / "journal.db"
    for rest in ("-wal", "-shm"):
        file.with_name(file.name + rest).unlink(missing_ok=True)
    if spoil == "remove":
        file.unlink()
    else:
        file.write_bytes(b"" if spoil == "truncate" else b"no database, " * 999)
    await bench.start()
    assert bench.colors() == ["red"]
    await bench.change(desiredPhase="Stop")
    assert bench.colors() == []
    await bench.close()


async def test_after_a_lost_journal_a_stop_that_nobody_saw_is_still_carried_out(tmp_path):
    bench = Bench(tmp_path)
    await bench.renew()
    await bench.pod()
    await bench.start()
    await bench.fault()
    await bench.kill()
    (tmp_path / "journal.db").unlink()
    await bench.change(desiredPhase="Stop")
    await bench.start()
    assert bench.colors() == []
    assert bench.record()["phase"] == "Not Injected"
    await bench.close()
