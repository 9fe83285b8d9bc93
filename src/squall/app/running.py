"""What every process with an agent in it does alike: it is watched, and ends in good order."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

from squall.app.places import Places
from squall.app.world import squall_command
from squall.linux.watcher import Watcher
from squall.node.agent import Agent
from squall.telemetry import logger


def asked_to_stop() -> asyncio.Event:
    """Give an event that SIGTERM and SIGINT set."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


def children_without_threads() -> None:
    """Wait for child processes in the event loop, as Python does by itself from 3.12 on.

    Before, every child has a thread that waits for it: a partition of many targets starts many.
    """
    if sys.version_info < (3, 12):
        asyncio.get_event_loop_policy().set_child_watcher(asyncio.PidfdChildWatcher())


async def public_key(key: bytes) -> str:
    """Work out what Secrets are sealed to for the owner of `key`.

    In a process of its own, which takes with it what it has to load.

    Raises:
        OSError: it failed; the reason is on standard error.
    """
    work = "import sys; from squall.sealing import public_of; "
    work += "print(public_of(sys.stdin.buffer.read()))"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", work), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    public, _ = await process.communicate(key)
    if process.returncode:
        raise OSError(f"no public key could be worked out: exit status {process.returncode}")
    return public.decode().strip()


@asynccontextmanager
async def watched(places: Places, lease_seconds: float) -> AsyncIterator[Watcher]:
    """Have somebody outside take everything back should this process die."""
    recover = [squall_command(), "recover", "--all", "--data-dir"]
    watcher = Watcher(places.watcher, lease_seconds, [*recover, str(places.directory.resolve())])
    await watcher.start()
    yield watcher
    # Reached only after a clean end: whatever else happened, the watcher must see it through.
    await watcher.stop()


async def act_until(
    stopping: asyncio.Event,
    agent: Agent,
    parts: Iterable[Coroutine[Any, Any, object]],
    ready: Callable[[], None],
) -> None:
    """Run an agent and the parts beside it; then restore every target, and end the parts.

    What is started beside the agent ends after it: targets are restored while somebody can still
    write down that they were.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part) for part in parts]
        acting = group.create_task(agent.run())
        ready()
        await _first(stopping.wait(), acting)
        await agent.stop(restore=True)
        for task in tasks:
            task.cancel()


async def _first(waiting: Coroutine[Any, Any, object], task: asyncio.Task[None]) -> None:
    """Wait for a stop; an agent that ends without one has failed, and its group ends with it."""
    asked = asyncio.ensure_future(waiting)
    await asyncio.wait([asked, task], return_when=asyncio.FIRST_COMPLETED)
    if not asked.done():
        asked.cancel()
        logger(__name__).error("the agent ended by itself")
