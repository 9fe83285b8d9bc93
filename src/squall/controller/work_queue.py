"""One task at a time for each key, and no more keys at once than the API can bear."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from squall.clock import Clock

K = TypeVar("K", bound=Hashable)

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 30.0

AT_ONCE = 16
"""Keys that are worked on at the same time; the others stand in line."""


@dataclass(frozen=True, slots=True)
class Again:
    """When to work on a key again, even if nobody asks."""

    seconds: float | None = None
    """From now; None: only when asked."""
    retry: bool = False
    """Sooner at first and later with every time in a row."""


@dataclass(slots=True)
class _Line:
    asked: bool = False
    task: asyncio.Task[None] | None = None
    timer: asyncio.Task[None] | None = None
    retries: int = 0


@dataclass
class WorkQueue(Generic[K]):
    """Calls `work` for every key that is asked for, and again as it says.

    Asking for a key while it is worked on makes it be worked on once more, after all others that
    were asked for until then. A key that takes long holds up nobody else while fewer than
    `AT_ONCE` do. `work` must not raise.
    """

    work: Callable[[K], Awaitable[Again]]
    clock: Clock
    _lines: dict[K, _Line] = field(default_factory=dict)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Work until cancelled; what was asked for before is done first."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for key in list(self._lines):
                self.ask(key)
            await asyncio.Event().wait()

    def ask(self, key: K) -> None:
        """Have a key worked on soon."""
        line = self._lines.setdefault(key, _Line())
        line.asked = True
        if line.task is None and self._group is not None:
            line.task = self._group.create_task(self._drain(key, line))

    def stop(self) -> None:
        """Drop everything that is under way or waiting."""
        for line in self._lines.values():
            for task in (line.task, line.timer):
                if task is not None:
                    task.cancel()
        self._lines.clear()

    async def _drain(self, key: K, line: _Line) -> None:
        again = Again()
        while line.asked:
            async with self._places:
                line.asked = False
                again = await self.work(key)
            line.retries = line.retries + 1 if again.retry else 0
        line.task = None
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None
        wait = _wait(again, line.retries)
        if wait is None:
            self._lines.pop(key, None)
        elif self._group is not None:
            line.timer = self._group.create_task(self._later(key, wait))

    async def _later(self, key: K, seconds: float) -> None:
        await self.clock.sleep(seconds)
        self._lines.setdefault(key, _Line()).timer = None
        self.ask(key)


def _wait(again: Again, retries: int) -> float | None:
    waits = [] if again.seconds is None else [again.seconds]
    if again.retry:
        waits.append(min(FIRST_RETRY_SECONDS * 2 ** min(retries - 1, 20), LAST_RETRY_SECONDS))
    return min(waits, default=None)
