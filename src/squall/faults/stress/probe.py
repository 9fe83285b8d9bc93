"""Are processor time and memory of the container used up as asked?"""

from squall.clock import Clock
from squall.faults.stress.judgement import judge
from squall.faults.stress.merge import CPU, MEMORY, OWN, name_of
from squall.faults.stress.model import StressFault
from squall.injection.contract import Judgement, Live, Sample, Way
from squall.injection.world import World
from squall.injection.world.stressors import Stressors, Taken
from squall.injection.world.target import Target

WINDOW_SECONDS = 0.9
"""Over which processor time is counted; a sample may take a second."""
NOTHING = Taken(0.0, 0)


class StressProbe:
    """Reads the counters of the container's cgroup, and those of the fault's own processes in it.

    Both, because neither proves it alone: the cgroup counts the container's own work too, and what
    processes use need not be felt by the container.
    """

    def __init__(self, world: World) -> None:
        self._stressors: Stressors = world.stressors
        self._clock: Clock = world.clock

    async def sample(self, target: Target, live: Live[StressFault]) -> Sample:
        """Count; over a window where something of this fault runs, else at once."""
        # Each part by its own run: stress-ng takes some memory to load a processor too.
        loading = [name_of(live.source, part) for part in (CPU, OWN)]
        holding = [name_of(live.source, part) for part in (MEMORY, OWN)]
        first, before = await self._stressors.taken(target), await self._stressors.usage(target)
        values = {
            "cgroup_memory_bytes": float(before.memory_bytes),
            "cpu_limit_percent": before.cpu_limit * 100,
            "memory_limit_bytes": float(before.memory_limit),
            "oom_kills": float(before.oom_kills),
            "confined": float(before.confined),
        }
        if not any(name in first for name in (*loading, *holding)):
            return Sample(Way.PASSIVE, values)
        await self._clock.sleep(WINDOW_SECONDS)
        last, after = await self._stressors.taken(target), await self._stressors.usage(target)
        seconds = max(after.at - before.at, 1e-3)
        if pairs := [(first.get(name, NOTHING), last[name]) for name in loading if name in last]:
            used = sum(max(0.0, b.cpu_seconds - a.cpu_seconds) for a, b in pairs)
            waited = sum(max(0.0, b.waited_seconds - a.waited_seconds) for a, b in pairs)
            values["stressor_cpu_percent"] = 100 * used / seconds
            values["stressor_waited_percent"] = 100 * waited / seconds
        held = sum(last[name].memory_bytes for name in holding if name in last)
        had = sum(first[name].memory_bytes for name in holding if name in first)
        values |= {
            "stressor_memory_bytes": float(held),
            "stressor_memory_growth_bytes": float(held - had),
            "cgroup_cpu_percent": 100 * (after.cpu_seconds - before.cpu_seconds) / seconds,
            "cgroup_memory_bytes": float(after.memory_bytes),
            "oom_kills": float(after.oom_kills),
        }
        return Sample(Way.PASSIVE, values)

    def judge(self, fault: StressFault, before: Sample | None, during: Sample) -> Judgement:
        """Compare; each part within a tenth of what was asked, or at the container's limit."""
        return judge(fault, before.values if before else {}, during.values)
