"""The host's clocks."""

import asyncio
import time
from datetime import UTC, datetime


class SystemClock:
    """CLOCK_REALTIME and CLOCK_BOOTTIME; clock_gettime(2)."""

    def now(self) -> datetime:
        """Read the wall clock, in UTC."""
        return datetime.now(UTC)

    def boottime(self) -> float:
        """Seconds since boot, suspension included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        """Sleep at least so long; suspension is noticed within a minute of waking."""
        ends = self.boottime() + seconds
        # asyncio sleeps on CLOCK_MONOTONIC, which stands still while the host is suspended.
        while (left := ends - self.boottime()) > 0:  # noqa: ASYNC110  (nothing tells of it)
            await asyncio.sleep(min(left, 60.0))
