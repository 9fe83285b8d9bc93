"""`squall-node watch`: what happens when an agent dies, and when it does not."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager

import pytest

from testbed.containers import PROGRAM

pytestmark = pytest.mark.host

AT_ONCE, NEVER = "0", "3600"


class Agents:
    """Processes that stand for agents, and the watchers that they start."""

    def __init__(self, directory):
        self.lock, self.log = directory / "watcher.lock", directory / "watcher.log"
        self._started = []

    async def agent(self):
        return await self._start("sleep", "60")

    async def watcher(self, agent, *command, lease=AT_ONCE, more=(), heard=None):
        watcher = await self._start(
            *(PROGRAM, "watch", "--pid", str(agent.pid), "--lease", lease, *more),
            *("--lock", str(self.lock), "--", *command),
            stdin=heard,
        )
        async with asyncio.timeout(10):
            assert await watcher.stdout.readline() == b"watching\n"
        return watcher

    async def _start(self, *command, stdin=None):
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, stdin=stdin, stdout=pipe, stderr=pipe
        )
        self._started.append(process)
        return process

    async def close(self):
        for process in self._started:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    @property
    def said(self):
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
async def agents(tmp_path):
    agents = Agents(tmp_path)
    yield agents
    await agents.close()


async def dead(process):
    process.kill()
    await process.wait()


@asynccontextmanager
async def soon():
    async with asyncio.timeout(10):
        yield


async def test_a_dead_agent_is_cleaned_up_after_once(agents):
    agent = await agents.agent()
    watcher = await agents.watcher(agent, "sh", "-c", "echo recovered; exit 3")
    assert agents.said == []
    await dead(agent)
    async with soon():
        assert await watcher.wait() == 3
    assert agents.said == ["recovered"]
    assert agents.lock.read_text() == ""


async def test_an_agent_that_came_back_is_left_alone(agents):
    first, second = await agents.agent(), await agents.agent()
    old = await agents.watcher(first, "echo", "old")
    await agents.watcher(second, "echo", "new")
    await dead(first)
    async with soon():
        assert await old.wait() == 0
    assert agents.said == []
    await dead(second)


async def test_a_watcher_waits_for_the_lease(agents):
    agent = await agents.agent()
    watcher = await agents.watcher(agent, "echo", "recovered", lease=NEVER)
    await dead(agent)
    heir = await agents.agent()
    await agents.watcher(heir, "echo", "recovered", lease=NEVER)  # the lock is free meanwhile
    assert watcher.returncode is None
    assert agents.said == []


async def test_a_watcher_that_is_told_to_end_does_nothing(agents):
    agent = await agents.agent()
    watcher = await agents.watcher(agent, "echo", "recovered")
    watcher.terminate()
    async with soon():
        assert await watcher.wait() == -signal.SIGTERM
    await dead(agent)
    assert agents.said == []


async def test_a_hangup_or_an_interrupt_is_meant_for_the_agent_alone(agents):
    agent = await agents.agent()
    watcher = await agents.watcher(agent, "echo", "recovered")
    for number in (signal.SIGINT, signal.SIGHUP):
        watcher.send_signal(number)
    await dead(agent)
    async with soon():
        assert await watcher.wait() == 0
    assert agents.said == ["recovered"]


async def test_a_new_agent_waits_for_a_recovery_that_is_under_way(agents, tmp_path):
    go = tmp_path / "go"
    script = f"echo begun; while ! test -e {go}; do sleep 0.01; done; echo done"
    agent = await agents.agent()
    await agents.watcher(agent, "sh", "-c", script)
    await dead(agent)
    async with soon():
        while agents.said != ["begun"]:  # noqa: ASYNC110  (a file of another process)
            await asyncio.sleep(0.005)
    heir = await agents.agent()
    waiting = asyncio.create_task(agents.watcher(heir, "echo", "never"))
    go.touch()
    async with soon():
        await waiting
    assert agents.said == ["begun", "done"]


async def test_an_agent_that_is_dead_already_is_cleaned_up_after(agents):
    agent = await agents.agent()
    await dead(agent)
    watcher = await agents.watcher(agent, "echo", "recovered")
    async with soon():
        await watcher.wait()
    assert agents.said == ["recovered"]


async def test_who_reads_the_output_of_an_agent_need_not_wait_for_its_watcher(agents):
    agent = await agents.agent()
    watcher = await agents.watcher(agent, "echo", "recovered", lease=NEVER)
    async with soon():
        assert await watcher.stdout.read() == b""
        assert await watcher.stderr.read() == b""
    assert watcher.returncode is None


async def test_an_agent_whose_heart_has_stopped_is_killed_before_the_recovery(agents):
    agent = await agents.agent()
    heard, heart = os.pipe()
    more = ("--heartbeat", "0.5")
    watcher = await agents.watcher(agent, "echo", "healed", lease=NEVER, more=more, heard=heard)
    os.close(heard)
    for _ in range(10):
        os.write(heart, b".")
        await asyncio.sleep(0.1)
    assert agent.returncode is None
    agent.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(10):
        assert await agent.wait() == -signal.SIGKILL
        assert await watcher.wait() == 0
    assert agents.said[-1] == "healed"
    os.close(heart)


async def test_an_agent_that_still_starts_has_time_until_its_heart_beats(agents):
    agent = await agents.agent()
    heard, heart = os.pipe()
    more = ("--heartbeat", "0.2")
    watcher = await agents.watcher(agent, "echo", "healed", lease=NEVER, more=more, heard=heard)
    os.close(heard)
    ended = [asyncio.ensure_future(one.wait()) for one in (agent, watcher)]
    await asyncio.wait(ended, timeout=1, return_when=asyncio.FIRST_COMPLETED)
    assert agent.returncode is None
    os.write(heart, b".")
    async with asyncio.timeout(10):
        assert await agent.wait() == -signal.SIGKILL
    os.close(heart)


async def test_an_agent_that_closes_its_heart_is_left_alone(agents):
    agent = await agents.agent()
    more = ("--heartbeat", "0.2")
    watcher = await agents.watcher(
        agent, "echo", "healed", more=more, heard=asyncio.subprocess.DEVNULL
    )
    await asyncio.wait([asyncio.ensure_future(watcher.wait())], timeout=1)
    assert agent.returncode is None
    await dead(agent)
    async with asyncio.timeout(10):
        assert await watcher.wait() == 0
    assert agents.said == ["healed"]
