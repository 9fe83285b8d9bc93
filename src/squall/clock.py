"""Time as a port, so that nothing below an adapter reads a clock and no test sleeps."""

import asyncio
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Protocol


class Clock(Protocol):
    """Three views of time; which one is right depends on who may change the other two."""

    def now(self) -> datetime:
        """Read the wall clock, in UTC; it may be stepped at any moment."""

    def boottime(self) -> float:
        """Seconds since boot, suspension included; never stepped (CLOCK_BOOTTIME)."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of boot time; at once when not positive."""


class FakeClock:
    """A clock that stands still until `advance` is called."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, 12, tzinfo=UTC)) -> None:
        self._wall, self._boot = start, 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def now(self) -> datetime:
        """Read the moment that was set."""
        return self._wall

    def boottime(self) -> float:
        """Read the seconds that were advanced, plus 1000."""
        return self._boot

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has gone past this moment."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wakes = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self._boot + seconds, next(self._order), wakes))
        await wakes

    def step(self, by: timedelta) -> None:
        """Step the wall clock alone, as an administrator or NTP would."""
        self._wall += by

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, waking sleepers in order and letting each run until it rests."""
        ends = self._boot + seconds
        while self._sleepers and self._sleepers[0][0] <= ends:
            at, _, wakes = heappop(self._sleepers)
            self._wall += timedelta(seconds=at - self._boot)
            self._boot = at
            if not wakes.done():
                wakes.set_result(None)
            await settle()
        self._wall += timedelta(seconds=ends - self._boot)
        self._boot = ends
        await settle()


async def settle(rounds: int = 50) -> None:
    """Let every task that can run do so; for tests on a `FakeClock`."""
    for _ in range(rounds):
        await asyncio.sleep(0)
