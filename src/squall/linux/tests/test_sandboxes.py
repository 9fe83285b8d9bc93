"""Containers of ours on this very kernel."""

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from squall.linux.processes import Processes, started
from squall.linux.sandboxes import LinuxSandboxes
from squall.linux.sessions import Commands
from squall.node.sandboxes import PodName
from testbed.containers import DB, PROGRAM, WEB, of, order, until

pytestmark = pytest.mark.host


def resolved(name):
    """The shell of a test: every address of a name, as programs look it up."""
    return ("getent", "ahosts", name)


async def ran(sandboxes, pod, *command, **environment):
    """Run a container to its end: (status, what it wrote)."""
    asked = order(pod, *command, **environment)
    await sandboxes.start(asked)
    async with asyncio.timeout(10):
        ended = await sandboxes.ended(asked.id)
    return ended.status, sandboxes.log_path(asked.id).read_text()


def traces(places):
    """Everything in this kernel that carries the mark of an installation."""
    found = [str(path) for path in Path("/sys/fs/cgroup").rglob(f"{places.mark}*")]
    found += [path.name for path in Path("/sys/class/net").glob(f"{places.mark}*")]
    aliases = Path("/sys/class/net").glob("*/ifalias")
    found += [str(path) for path in aliases if places.mark in path.read_text()]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if places.mark in line]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if places.mark.encode() in words:
            found.append(words.decode())
    return found


async def test_a_container_has_its_own_name_network_and_environment(sandboxes):
    addresses = await sandboxes.attach(WEB)
    status, wrote = await ran(
        sandboxes, WEB, "sh", "-c", "hostname; hostname -I; echo $COLOUR $$", COLOUR="blue"
    )
    assert status == 0
    assert wrote.split() == ["web", *addresses, "blue", "2"]


async def test_a_long_name_is_cut_where_a_host_name_ends(sandboxes):
    long = PodName("default", "a" * 62 + ".b")
    await sandboxes.attach(long)
    assert await ran(sandboxes, long, "hostname") == (0, "a" * 62 + "\n")


async def test_containers_find_and_reach_each_other_by_name_on_both_families(sandboxes):
    await sandboxes.attach(WEB)
    server = order(WEB, sys.executable, "-c", SERVER)
    await sandboxes.start(server)
    await sandboxes.attach(DB)  # later than WEB started: its hosts file was rewritten in place
    status, wrote = await ran(sandboxes, DB, *resolved("web.default"))
    addresses = sandboxes._bridge.pods()[WEB]
    assert status == 0
    assert {line.split()[0] for line in wrote.splitlines()} == set(addresses)
    for address in addresses:
        assert await ran(sandboxes, DB, sys.executable, "-c", CLIENT, address) == (0, "hello")
    commands = Commands(PROGRAM)
    (running,) = [each for each in await sandboxes.list() if each.ended is None]
    session = await commands.start(
        running.pid, running.started, resolved("db"), stdin=False, tty=False
    )
    assert sandboxes._bridge.pods()[DB][0].encode() in await session.stdout.read()
    assert await session.wait() == 0


SERVER = """
import socket
with socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    while True:
        server.accept()[0].sendall(b"hello")
"""
CLIENT = """
import socket, sys, time
for _ in range(100):
    try:
        print(socket.create_connection((sys.argv[1], 7000), 5).recv(9).decode(), end="")
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
"""


async def test_the_bridge_can_be_used_at_once(sandboxes, places):
    """No second of duplicate address detection: proc(5), if_inet6, flag 0x40 is tentative."""
    await sandboxes.attach(WEB)
    lines = [line.split() for line in of(os.getpid(), "net/if_inet6").splitlines()]
    flags = [int(line[4], 16) for line in lines if line[5] == places.mark and line[3] == "00"]
    assert len(flags) == 1
    assert not flags[0] & 0x40


async def test_a_container_is_resolved_by_its_cgroup(sandboxes):
    await sandboxes.attach(WEB)
    asked = order(WEB, "sleep", "60")
    running = await sandboxes.start(asked)
    found = await Processes().resolve([asked.id])
    assert found == {asked.id: (running.pid, running.started)}


@pytest.mark.parametrize(
    ("command", "number", "status"),
    [
        (("sleep", "60"), signal.SIGKILL, 137),
        (("sleep", "60"), signal.SIGTERM, 143),
        (("sh", "-c", "trap 'exit 5' TERM; sleep 60 & wait"), signal.SIGTERM, 5),
    ],
)
async def test_an_end_by_signal_is_told_as_a_shell_does(sandboxes, command, number, status):
    await sandboxes.attach(WEB)
    asked = order(WEB, *command)
    running = await sandboxes.start(asked)
    await until(lambda: Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text())
    if "trap" in command[-1]:
        await until(lambda: _catches_term(running.pid))
    await sandboxes.signal(asked.id, number)
    async with asyncio.timeout(10):
        assert (await sandboxes.ended(asked.id)).status == status


def _catches_term(init):
    """Has the command below init installed its trap?"""
    child = Path(f"/proc/{init}/task/{init}/children").read_text().split()[0]
    lines = Path(f"/proc/{child}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return int(caught, 16) >> (signal.SIGTERM - 1) & 1


async def test_a_program_that_is_not_there_ends_with_the_reason(sandboxes):
    await sandboxes.attach(WEB)
    sandbox = await sandboxes.start(order(WEB, "nosuchprogram"))
    assert (sandbox.pid, sandbox.ended.status) == (0, 127)
    assert "nosuchprogram: No such file" in sandbox.ended.message


async def test_half_a_container_is_none(sandboxes, places):
    """SIGKILL of the shim ends the container too, and whoever comes next sees that."""
    await sandboxes.attach(WEB)
    asked = order(WEB, "sh", "-c", "sleep 60 & setsid sleep 60 & wait")
    running = await sandboxes.start(asked)
    state = json.loads((places.run_dir / "containers" / asked.id / "state.json").read_text())
    os.kill(state["shim"], signal.SIGKILL)
    async with asyncio.timeout(10):
        ended = await sandboxes.ended(asked.id)
    assert (ended.status, ended.message) == (137, "nobody saw it end")
    await until(lambda: started(running.pid) != running.started)
    assert await Processes().resolve([asked.id]) == {}


async def test_another_process_adopts_what_runs(sandboxes, places):
    addresses = await sandboxes.attach(WEB)
    running = await sandboxes.start(order(WEB, "sleep", "60"))
    ended = await sandboxes.start(order(WEB, "false"))
    async with asyncio.timeout(10):
        await sandboxes.ended(ended.id)
    heir = LinuxSandboxes(places, PROGRAM)
    await heir.up()
    assert await heir.attached() == {WEB: addresses}
    found = {each.id: each for each in await heir.list()}
    assert found[running.id] == running
    assert found[ended.id].ended.status == 1
    await heir.signal(running.id, signal.SIGKILL)
    async with asyncio.timeout(10):
        assert (await heir.ended(running.id)).status == 137
    assert await heir.attach(WEB) == addresses


async def test_nothing_is_left_behind(places):
    sandboxes = LinuxSandboxes(places, PROGRAM)
    await sandboxes.up()
    for pod in (WEB, DB):
        await sandboxes.attach(pod)
        await sandboxes.start(order(pod, "sh", "-c", "sleep 60 & sleep 60"))
    assert len([trace for trace in traces(places) if trace.endswith("ifalias")]) == 2
    assert len(traces(places)) > 10
    await sandboxes.detach(PodName("default", "absent"))
    await sandboxes.down()
    assert traces(places) == []
    assert not places.run_dir.exists()
    assert list(places.log_dir.iterdir()) == []


async def test_an_emptied_run_directory_is_a_new_start(places):
    """As after a reboot, but with everything still running: nothing of it may stay."""
    sandboxes = LinuxSandboxes(places, PROGRAM)
    await sandboxes.up()
    await sandboxes.attach(WEB)
    running = await sandboxes.start(order(WEB, "sleep", "60"))
    freeze(places, running.id)
    for name in ("containers", "pods", "hosts"):
        shutil.rmtree(places.run_dir / name)
    (places.run_dir / "subnets.json").unlink()
    heir = LinuxSandboxes(places, PROGRAM)
    await heir.up()
    assert (await heir.list(), await heir.attached()) == ([], {})
    assert started(running.pid) != running.started
    assert not [trace for trace in traces(places) if "netns" in trace or "squ-" in trace]
    await heir.attach(WEB)
    assert await ran(heir, WEB, "hostname") == (0, "web\n")
    await heir.down()
    assert traces(places) == []


async def test_a_frozen_container_can_be_removed(sandboxes, places):
    await sandboxes.attach(WEB)
    asked = order(WEB, "sleep", "60")
    running = await sandboxes.start(asked)
    freeze(places, asked.id)
    await sandboxes.remove(asked.id)
    assert started(running.pid) != running.started


def freeze(places, id_):
    for path in Path("/sys/fs/cgroup").glob(f"**/{places.mark}/{id_}"):
        for name, value in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
            if (path / name).exists():
                (path / name).write_text(value)


async def test_a_network_goes_while_other_containers_run(sandboxes, places):
    for pod in (WEB, DB):
        await sandboxes.attach(pod)
        await sandboxes.start(order(pod, "sleep", "60"))
    network = inode(sandboxes._bridge.network(WEB))
    (web,) = [each for each in await sandboxes.list() if each.pod == WEB]
    await sandboxes.remove(web.id)
    await sandboxes.detach(WEB)
    (db,) = await sandboxes.list()
    assert f"net:[{network}]" not in of(db.pid, "mountinfo")
    assert "web" not in of(db.pid, "root/etc/hosts")


def inode(path):
    return path.stat().st_ino


async def test_forty_containers_start_in_a_few_seconds(sandboxes):
    loop = asyncio.get_running_loop()
    begin = loop.time()

    async def one(number):
        pod = PodName("default", f"pod-{number}")
        async with at_once:
            await sandboxes.attach(pod)
            return await sandboxes.start(order(pod, "sleep", "60"))

    at_once = asyncio.Semaphore(4)
    running = await asyncio.gather(*(one(number) for number in range(40)))
    took = loop.time() - begin
    found = await Processes().resolve([each.id for each in running])
    assert len(found) == 40
    assert took < 20  # seconds; about 1 where nobody else works


async def test_shim_and_init_are_small(sandboxes, places):
    """What each takes for itself; pages of the program are there once for all that run it."""
    await sandboxes.attach(WEB)
    asked = order(WEB, "sleep", "60")
    await sandboxes.start(asked)
    state = json.loads((places.run_dir / "containers" / asked.id / "state.json").read_text())
    for part in ("shim", "init"):
        lines = of(state[part], "status").splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
        assert kib <= 512
