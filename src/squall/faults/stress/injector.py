"""Load on the processor and the memory of a container."""

from collections.abc import Sequence

from squall.faults.stress.merge import wanted
from squall.faults.stress.model import StressFault
from squall.injection.contract import Live, Memory
from squall.injection.world import World
from squall.injection.world.target import Target


class StressInjector:
    """Runs one stress-ng for each part of each live fault."""

    def __init__(self, world: World) -> None:
        self._stressors = world.stressors

    async def converge(
        self, target: Target, live: Sequence[Live[StressFault]], memory: Memory
    ) -> None:
        """End what shall not run, start what does not.

        Every run carries its mark in its environment, so nothing has to be remembered.
        """
        running = {one.name: one for one in await self._stressors.running(target)}
        if not live and not running:
            return
        limit = (await self._stressors.usage(target)).memory_limit
        want = wanted(live, limit)
        # Ending comes first: two that hold memory together could be more than there is.
        for name, stressor in running.items():
            if want.get(name) != stressor:
                await self._stressors.stop(target, name)
        for name, stressor in want.items():
            if running.get(name) != stressor:
                await self._stressors.start(target, stressor)
