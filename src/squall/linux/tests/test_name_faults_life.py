"""Faults in names end with whoever holds them, and are found again by who comes after."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import dns.message
import pytest

from squall.errors import TargetGone, TryAgain
from squall.injection.world.names import Answer, NameRule
from squall.injection.world.target import Target
from squall.linux import namespaces
from squall.linux.clock import SystemClock
from squall.linux.name_faults import LinuxNames
from squall.linux.tests.conftest import FAR, LEASE_SECONDS
from squall.linux.tests.name_server import ADDRESS, asked, opened, says, sent
from testbed.entered import wait

pytestmark = [pytest.mark.host]

RULE = NameRule("a/.", (), (), Answer("code", 2))
OTHER = NameRule("b/.", ("b.example",), (1,), Answer("code", 3), 100.0, 2_000, 1_000)
NAME = "a.example"


@pytest.fixture
def said(cables, server):
    return lambda name=NAME: says(asked(cables.target, server.address, name))


def holder_of(names, target):
    """The process as the adapter sees it: a connection of our own would replace that one."""
    return names._holders._holds[namespaces.of(target).inode].process


async def ended(holder):
    async with asyncio.timeout(LEASE_SECONDS + 5):
        await holder.gone.wait()


async def test_a_holder_that_is_killed_leaves_names_as_they_were(cables, names, said):
    before = cables.snapshot()
    await names.apply(cables.target, [RULE])
    assert said() == "SERVFAIL"
    holder = holder_of(names, cables.target)
    os.kill(holder.pid, signal.SIGKILL)
    await ended(holder)
    assert said() == ADDRESS
    assert says(asked(cables.target, FAR[4], NAME, tcp=True)) == ADDRESS
    assert cables.snapshot() == before
    assert await names.state(cables.target) == ()
    await names.apply(cables.target, [RULE])
    assert said() == "SERVFAIL"


async def test_a_holder_that_hangs_is_ended_all_the_same(cables, names, said, monkeypatch):
    for module in ("json_lines", "holder"):
        monkeypatch.setattr(f"squall.linux.{module}.ANSWER_SECONDS", 0.3)
    await names.apply(cables.target, [RULE])
    holder = holder_of(names, cables.target)
    os.kill(holder.pid, signal.SIGSTOP)
    await names.apply(cables.target, [])
    assert said() == ADDRESS


async def test_an_agent_that_comes_back_finds_what_is_in_force(cables, names, said, tmp_path):
    await names.apply(cables.target, [RULE, OTHER])
    said()
    await names.close()
    again = LinuxNames(tmp_path / "dns", lease_seconds=LEASE_SECONDS)
    assert await again.state(cables.target) == (RULE, OTHER)
    assert (await again.counters(cables.target))["a/."].hit == 1
    await again.apply(cables.target, [OTHER])
    assert said() == ADDRESS
    assert said("b.example") == "NXDOMAIN"
    await again.apply(cables.target, [])
    assert said("b.example") == ADDRESS


async def test_without_an_agent_names_resolve_again_after_a_lease(cables, names, said, tmp_path):
    before = cables.snapshot()
    await names.apply(cables.target, [RULE])
    pid = holder_of(names, cables.target).pid
    await names.close()
    began = time.monotonic()
    async with asyncio.timeout(LEASE_SECONDS + 5):
        while _lives(pid):  # noqa: ASYNC110  (nothing tells of it)
            await asyncio.sleep(0.05)
    assert time.monotonic() - began >= LEASE_SECONDS - 0.5
    assert said() == ADDRESS
    assert cables.snapshot() == before
    assert not list((tmp_path / "dns").glob("*.sock"))


async def test_a_deadline_ends_it_whoever_is_connected(cables, names, said):
    await names.apply(cables.target, [RULE])
    holder = holder_of(names, cables.target)
    rules = await holder.rules()
    ends = SystemClock().boottime() + 0.2
    await holder.ask("set", {"rules": rules, "lease": 60, "deadline": ends})
    await ended(holder)
    assert SystemClock().boottime() >= ends
    assert said() == ADDRESS


async def test_a_table_that_another_holds_is_waited_for(cables, names, said, tmp_path):
    await names.apply(cables.target, [RULE])
    stranger = LinuxNames(tmp_path / "another", lease_seconds=LEASE_SECONDS)
    with pytest.raises(TryAgain, match="held by another process"):
        await stranger.apply(cables.target, [OTHER])
    assert said("b.example") == "SERVFAIL"
    await names.apply(cables.target, [])
    await stranger.apply(cables.target, [OTHER])
    assert said("b.example") == "NXDOMAIN"
    await stranger.end_all()
    assert said("b.example") == ADDRESS


async def test_the_same_again_changes_nothing_and_counters_go_on(cables, names, said):
    for _ in range(2):
        await names.apply(cables.target, [RULE])
        said()
    pid = holder_of(names, cables.target).pid
    await names.apply(cables.target, [RULE, OTHER])
    assert holder_of(names, cables.target).pid == pid
    assert (await names.counters(cables.target))["a/."].matched == 2


async def test_a_request_that_makes_no_sense_changes_nothing(cables, names, said):
    await names.apply(cables.target, [RULE])
    holder = holder_of(names, cables.target)
    with pytest.raises(Exception, match="200 percent"):
        await names.apply(cables.target, [replace(RULE, percent=200.0)])
    rule = (await holder.rules())[0]
    for odd in ({**rule, "answer": {"kind": "code", "code": 99}}, {**rule, "more": 1}, {}):
        with pytest.raises(Exception, match=r"code 99|more|source"):
            await holder.set([odd], lease_seconds=LEASE_SECONDS)
    assert said() == "SERVFAIL"


async def test_containers_of_one_pod_share_a_network_and_end_one_by_one(cables, names, said):
    app, sidecar = (replace(cables.target, id=f"default/web/{name}") for name in ("app", "sidecar"))
    await names.apply(app, [RULE])
    await names.apply(sidecar, [OTHER, RULE])
    assert said() == "SERVFAIL"
    assert said("b.example") == "NXDOMAIN"
    assert (await names.counters(app)).keys() == {"a/."}
    counted = (await names.counters(sidecar))["a/."]
    assert (counted.matched, counted.hit) == (1, 1)
    await names.apply(app, [])
    assert said() == "SERVFAIL"
    await names.apply(sidecar, [])
    assert said() == ADDRESS


@pytest.fixture
def app(cables):
    """Another container of the same pod: a process that may end, in the same network."""
    network = f"--net=/proc/{cables.target.pid}/ns/net"
    command = ["nsenter", network, "sh", "-c", "echo inside; exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"inside\n"
        yield replace(
            cables.target,
            id="default/web/app",
            pid=process.pid,
            started=namespaces.started(process.pid),
        )
        process.kill()


async def ends(target):
    os.kill(target.pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        while namespaces.alive(target):  # noqa: ASYNC110  (nothing tells of it)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("restarted", [False, True], ids=["the same agent", "the next agent"])
@pytest.mark.parametrize("told_first", [False, True])
async def test_what_a_container_leaves_that_is_gone_is_taken_back(
    cables, names, said, app, tmp_path, restarted, told_first
):
    await names.apply(app, [RULE])
    await names.apply(cables.target, [OTHER])
    holder = holder_of(names, cables.target)
    if restarted:
        await names.close()
        names = LinuxNames(tmp_path / "dns", lease_seconds=LEASE_SECONDS)
    await ends(app)
    if told_first:
        with pytest.raises(TargetGone):
            await names.apply(app, [])
    await names.apply(cables.target, [OTHER])
    assert said() == ADDRESS
    assert said("b.example") == "NXDOMAIN"
    await names.apply(cables.target, [])
    assert said("b.example") == ADDRESS
    wait(lambda: not _lives(holder.pid))


async def test_a_target_that_is_gone_says_so_and_its_holder_ends(cables, names):
    await names.apply(cables.target, [RULE])
    holder = holder_of(names, cables.target)
    await ends(cables.target)
    with pytest.raises(TargetGone):
        await names.state(cables.target)
    wait(lambda: not _lives(holder.pid))


@pytest.fixture
def ending():
    """A container's first process that is told to end, and waits for another of its container."""
    program = "ip link set lo up; sleep 600 & echo inside; wait"
    command = ["unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"inside\n"
        first = child_of(process.pid)
        last = child_of(first)
        # Who traces a process hears of its end before its parent does, and here does not listen.
        with subprocess.Popen(["strace", "-qq", "-o", "/dev/null", "-p", str(last)]) as tracer:

            def ends():
                wait(lambda: traced(last))
                tracer.send_signal(signal.SIGSTOP)
                os.kill(first, signal.SIGKILL)
                wait(lambda: not Path(f"/proc/{first}/ns/net").exists())

            yield Target("default/web", "web", "", first, namespaces.started(first)), ends
            tracer.kill()
        process.kill()


def child_of(pid):
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def traced(pid):
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


async def test_the_holder_ends_with_a_container_that_still_waits_for_its_processes(names, ending):
    target, end = ending
    await names.apply(target, [RULE])
    holder = holder_of(names, target)
    end()
    assert namespaces.started(target.pid) == target.started
    with pytest.raises(TargetGone):
        await names.apply(target, [])
    wait(lambda: not _lives(holder.pid))


def relay_of(pid):
    (relay,) = {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()} - {pid}
    return relay


async def test_what_is_set_is_in_force_when_that_is_told(cables, names, said):
    await names.apply(cables.target, [RULE])
    relay, cpus = relay_of(holder_of(names, cables.target).pid), os.sched_getaffinity(0)
    # It runs when nobody else wants to: whom it has answered is a step ahead of it.
    os.sched_setscheduler(relay, os.SCHED_IDLE, os.sched_param(0))
    for task in (relay, 0):
        os.sched_setaffinity(task, {min(cpus)})
    try:
        for _ in range(100):
            for told, answer in (("NXDOMAIN", Answer("code", 3)), ("REFUSED", Answer("code", 5))):
                await names.apply(cables.target, [replace(RULE, answer=answer)])
                assert said() == told
    finally:
        os.sched_setaffinity(0, cpus)


async def test_a_resolver_under_way_is_not_lost_when_the_fault_ends(cables, names, server):
    slow = replace(RULE, answer=Answer("relayed"), delay_us=20_000_000)
    await names.apply(cables.target, [slow])
    query = dns.message.make_query(NAME, "A")
    with opened(cables.target, server.address) as over:
        waiting = asyncio.create_task(asyncio.to_thread(sent, over, query))
        async with asyncio.timeout(2):
            while (await names.counters(cables.target))["a/."].hit < 1:
                pass  # each look lets others run
        await names.apply(cables.target, [])
        assert says(await waiting) == ADDRESS


async def test_an_answer_under_way_over_a_connection_comes_when_the_fault_ends(
    cables, names, server, said, monkeypatch
):
    """Its connection is through us, and not every resolver asks again when it is reset."""
    came, told, answer = threading.Event(), threading.Event(), server.stream

    def hesitates(led, sender):
        led.recv(1, socket.MSG_PEEK)
        came.set()
        told.wait()
        answer(led, sender)

    monkeypatch.setattr(server, "stream", hesitates)
    await names.apply(cables.target, [replace(RULE, patterns=(NAME,))])
    with opened(cables.target, server.address, socket.SOCK_STREAM) as over:
        query = dns.message.make_query("spared.example", "A")
        waiting = asyncio.create_task(asyncio.to_thread(sent, over, query))
        await asyncio.to_thread(came.wait)
        ending = asyncio.create_task(names.apply(cables.target, []))
        try:
            while await asyncio.to_thread(said) != ADDRESS:
                pass  # each look lets others run
        finally:
            told.set()
        assert says(await waiting) == ADDRESS
        await ending


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
