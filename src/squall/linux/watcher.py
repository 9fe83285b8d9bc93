"""The process that takes everything back when the agent is gone: `squall-node watch`."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from squall.errors import TryAgain
from squall.linux.holder import program
from squall.telemetry import logger

START_SECONDS = 30.0
"""How long a recovery that is under way may keep the new watcher waiting."""
BEATS = 8
"""Heartbeats in the time after which an agent without one counts as dead."""
LEAST_SILENCE_SECONDS = 5.0
"""However short a lease is: a busy machine may keep a good agent from moving."""
PAUSE_SECONDS = 1.0
"""Between the end of a watcher and the start of the next; nobody watches meanwhile."""


class Watcher:
    """Keeps one watcher alive that outlives this process.

    Args:
        lock: file that names the watcher in charge.
        lease_seconds: how long after the death of this process it acts.
        command: what it runs then, once.
    """

    def __init__(self, lock: Path, lease_seconds: float, command: Sequence[str]) -> None:
        self._lock, self._lease_seconds, self._command = lock, lease_seconds, tuple(command)
        self._silence_seconds = max(lease_seconds, LEAST_SILENCE_SECONDS)
        self._process: asyncio.subprocess.Process | None = None
        self._heart: int | None = None

    async def start(self) -> None:
        """Start watching; returns when nothing can be missed any more.

        Raises:
            TryAgain: it did not begin in time; a recovery may still be under way.
        """
        if self._heart is not None:
            os.close(self._heart)
        heard, self._heart = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._process = await asyncio.create_subprocess_exec(
            program(),
            "watch",
            *("--pid", str(os.getpid())),
            *("--lease", str(self._lease_seconds)),
            *("--heartbeat", str(self._silence_seconds)),
            *("--lock", str(self._lock)),
            "--",
            *self._command,
            stdin=heard,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        os.close(heard)
        if self._process.stdout is None:
            raise AssertionError("stdout is a pipe")
        try:
            async with asyncio.timeout(START_SECONDS):
                begun = await self._process.stdout.readline()
        except TimeoutError:
            self._process.kill()
            begun = b""
        if not begun:
            await self._process.wait()
            raise TryAgain(f"the watcher did not begin within {START_SECONDS:g} s; see its message")

    async def keep(self) -> None:
        """Let it hear that this process moves, and start it again whenever it ends; for ever."""
        while True:
            if self._process is not None:
                status = await self._heard_until_its_end(self._process)
                logger(__name__).warning("the watcher ended with %d; starting another", status)
                await asyncio.sleep(PAUSE_SECONDS)
            try:
                await self.start()
            except TryAgain as reason:
                logger(__name__).error("%s", reason)

    async def _heard_until_its_end(self, process: asyncio.subprocess.Process) -> int:
        ended = asyncio.ensure_future(process.wait())
        try:
            while not ended.done():
                self._beat()
                await asyncio.wait([ended], timeout=self._silence_seconds / BEATS)
        finally:
            ended.cancel()
        return ended.result()

    def _beat(self) -> None:
        if self._heart is not None:
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(self._heart, b".")

    async def stop(self) -> None:
        """End it; for when everything has been taken back."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
        if self._heart is not None:
            os.close(self._heart)
            self._heart = None
