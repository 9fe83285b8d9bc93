"""Commands in containers, with pipes and with a terminal; and what containers wrote."""

import asyncio
import os
import secrets
from pathlib import Path

import pytest

from squall.linux.logs import LogFiles
from squall.linux.sessions import Commands
from testbed.containers import PROGRAM, WEB, order, until

pytestmark = pytest.mark.host


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
    pipe = Path("/tmp") / f"squall-{secrets.token_hex(8)}"
    os.mkfifo(pipe)
    script = "echo one; echo two; echo three; read x < $PIPE; echo four"
    asked = order(WEB, "sh", "-c", script, PIPE=str(pipe))
    try:
        await sandboxes.start(asked)
        await until(lambda: sandboxes.log_path(asked.id).read_text().endswith("three\n"))
        logs = LogFiles(sandboxes.log_path, sandboxes.ended)
        assert await read(logs, asked.id, tail_lines=2) == b"two\nthree\n"
        assert await read(logs, asked.id, limit_bytes=5) == b"one\nt"
        blocks = logs.read(asked.id, follow=True, tail_lines=1, limit_bytes=None)
        async with asyncio.timeout(10):
            assert await anext(blocks) == b"three\n"
            await asyncio.to_thread(pipe.write_text, "go\n")
            assert [block async for block in blocks] == [b"four\n"]
    finally:
        pipe.unlink()
    with pytest.raises(KeyError):
        logs.read("0" * 64, follow=False, tail_lines=None, limit_bytes=None)


async def read(logs, id_, *, tail_lines=None, limit_bytes=None):
    blocks = logs.read(id_, follow=False, tail_lines=tail_lines, limit_bytes=limit_bytes)
    return b"".join([block async for block in blocks])
