"""Containers of ours on this very kernel."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
from pathlib import Path

import pytest

from squall.linux.logs import LogFiles
from squall.linux.processes import Processes, started
from squall.linux.sandboxes import LinuxSandboxes, Places
from squall.linux.sessions import Commands
from squall.node.sandboxes import Order, PodName

pytestmark = pytest.mark.host

PROGRAM = shutil.which("squall-node", path=str(Path(sys.executable).parent)) or "squall-node"
WEB, DB = PodName("default", "web"), PodName("default", "db")


def order(pod, *command, **environment):
    return Order(secrets.token_hex(32), pod, "uid-1", command, environment)


def resolved(name):
    """The shell of a test: every address of a name, as programs look it up."""
    return ("getent", "ahosts", name)


@pytest.fixture
def places(tmp_path):
    mark = f"squall-{secrets.token_hex(4)}"
    return Places(mark, tmp_path / mark, tmp_path / "logs")


@pytest.fixture
async def sandboxes(places):
    ours = LinuxSandboxes(places, PROGRAM)
    await ours.up()
    yield ours
    await ours.down()


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


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (a kernel tells nobody)
            await asyncio.sleep(0.005)


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
    assert len(traces(places)) > 10
    await sandboxes.detach(PodName("default", "absent"))
    await sandboxes.down()
    assert traces(places) == []
    assert not places.run_dir.exists()
    assert list(places.log_dir.iterdir()) == []


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


def of(pid, name):
    return Path(f"/proc/{pid}/{name}").read_text()


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
    await sandboxes.attach(WEB)
    asked = order(WEB, "sleep", "60")
    await sandboxes.start(asked)
    state = json.loads((places.run_dir / "containers" / asked.id / "state.json").read_text())
    for part in ("shim", "init"):
        lines = of(state[part], "status").splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
        assert kib <= 2048


class Inside:
    """A running container, and commands in it."""

    def __init__(self, sandbox):
        self.sandbox, self.commands = sandbox, Commands(PROGRAM)

    async def start(self, *command, stdin=False, tty=False):
        return await self.commands.start(
            self.sandbox.pid, self.sandbox.started, command, stdin=stdin, tty=tty
        )


@pytest.fixture
async def inside(sandboxes):
    await sandboxes.attach(WEB)
    return Inside(await sandboxes.start(order(WEB, "sleep", "60", COLOUR="blue")))


async def test_a_command_sees_what_the_container_sees(inside):
    session = await inside.start(
        "sh", "-c", "hostname; echo $COLOUR; cat /proc/self/cgroup; exit 7"
    )
    async with asyncio.timeout(10):
        wrote = (await session.stdout.read()).decode()
        assert await session.wait() == 7
    assert wrote.splitlines()[:2] == ["web", "blue"]
    assert inside.sandbox.id in wrote


async def test_octets_pass_through_a_command_unchanged(inside):
    session = await inside.start("cat", stdin=True)
    octets = secrets.token_bytes(3_000_000)

    async def write():
        for at in range(0, len(octets), 50_000):
            session.stdin.write(octets[at : at + 50_000])
            await session.stdin.drain()
        session.stdin.close()

    async with asyncio.timeout(20):
        _, back = await asyncio.gather(write(), session.stdout.read())
        assert back == octets
        assert await session.wait() == 0


async def test_a_terminal_is_one_and_knows_its_size(inside):
    session = await inside.start("sh", stdin=True, tty=True)
    session.resize(101, 31)
    session.stdin.write(b"stty size; test -t 0 && echo terminal; exit 3\n")
    await session.stdin.drain()
    wrote = b""
    async with asyncio.timeout(10):
        while block := await session.stdout.read():
            wrote += block
        assert await session.wait() == 3
    assert b"31 101" in wrote
    assert b"\nterminal" in wrote


async def test_a_killed_session_leaves_no_command(inside):
    session = await inside.start("sleep", "4242")
    here = lambda: _count(inside.sandbox.pid, b"sleep\x004242\x00")  # noqa: E731
    await until(lambda: here() == 1)
    session.kill()
    async with asyncio.timeout(10):
        assert await session.wait() == 137
    await until(lambda: here() == 0)


def _count(init, words):
    mine = Path(f"/proc/{init}/ns/pid").readlink()
    found = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            inside = (path / "ns/pid").readlink() == mine
            found += inside and (path / "cmdline").read_bytes() == words
        except OSError:
            continue
    return found


async def test_a_log_is_read_from_near_its_end_and_followed(sandboxes):
    await sandboxes.attach(WEB)
    asked = order(WEB, "sh", "-c", "echo one; echo two; echo three; read x < /tmp/$PIPE; echo four")
    pipe = Path("/tmp") / f"squall-{secrets.token_hex(8)}"
    os.mkfifo(pipe)
    asked = Order(asked.id, WEB, "uid-1", asked.command, {"PIPE": pipe.name})
    try:
        await sandboxes.start(asked)
        await until(lambda: sandboxes.log_path(asked.id).read_text().endswith("three\n"))
        logs = LogFiles(sandboxes.log_path, sandboxes.ended)
        assert await read(logs, asked.id, tail_lines=2) == b"two\nthree\n"
        assert await read(logs, asked.id, limit_bytes=5) == b"one\nt"
        following = asyncio.create_task(read(logs, asked.id, follow=True, tail_lines=1))
        await asyncio.to_thread(pipe.write_text, "go\n")
        async with asyncio.timeout(10):
            assert await following == b"three\nfour\n"
    finally:
        pipe.unlink()
    with pytest.raises(KeyError):
        logs.read("0" * 64, follow=False, tail_lines=None, limit_bytes=None)


async def read(logs, id_, *, follow=False, tail_lines=None, limit_bytes=None):
    blocks = logs.read(id_, follow=follow, tail_lines=tail_lines, limit_bytes=limit_bytes)
    return b"".join([block async for block in blocks])
