"""Lets lanes turn, each by itself; what is changed goes before what is only measured."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

from squall.clock import Clock
from squall.errors import TryAgain
from squall.node.lane import Lane
from squall.node.waiting import unless
from squall.telemetry import logger

CALM_SECONDS = 0.5
"""How long a measurement waits at most while other targets are being changed."""


class Driver:
    """Drives the lanes of one agent.

    Args:
        clock: time.
        turned: called after every turn.
    """

    def __init__(self, clock: Clock, turned: Callable[[], None]) -> None:
        self._clock, self._turned = clock, turned
        self._changing = 0
        self._calm = asyncio.Event()
        self._calm.set()

    async def drive(self, lane: Lane) -> None:
        """Let one lane turn until nothing is left to do in it; no other lane waits for it."""
        while not lane.resting:
            lane.woken.clear()
            if not lane.hurries and not self._calm.is_set():
                # Whoever waits for the last of many targets would wait for their measurements, too.
                await unless(lane.woken, self._until_calm())
            wait = await self._turn(lane)
            self._turned()
            if lane.resting:
                break
            if wait is None:
                await lane.woken.wait()
            elif wait > 0:
                await unless(lane.woken, self._clock.sleep(wait))

    async def _until_calm(self) -> None:
        await unless(self._calm, self._clock.sleep(CALM_SECONDS))

    async def _turn(self, lane: Lane) -> float | None:
        hurries = lane.hurries
        self._count(hurries)
        try:
            return await lane.turn()
        except TryAgain as reason:
            return lane.failed(str(reason))
        except Exception as bug:  # noqa: BLE001  (the one broad net: a bug in a room stays there)
            name = uuid4().hex[:8]
            logger(__name__).error("bug %s on %s", name, lane.key.target, exc_info=bug)
            return lane.failed(f"bug {name}: {type(bug).__name__}: {bug}")
        finally:
            self._count(-hurries)

    def _count(self, change: int) -> None:
        self._changing += change
        if self._changing:
            self._calm.clear()
        else:
            self._calm.set()
