"""stress-ng and the cgroups of targets, in memory."""

from collections.abc import Mapping, Sequence

from squall.clock import Clock
from squall.errors import TargetGone
from squall.injection.world.fake import Fake, Fate
from squall.injection.world.stressors import Stressor, Taken, Usage
from squall.injection.world.target import Target

FREE_PERCENT, FREE_BYTES = 100.0, 256_000_000
"""What a stressor takes that was not told how much, as stress-ng does."""


class FakeStressors(Fake):
    """Stressors take just what they shall, times `grip`; the target itself takes `idle`."""

    def __init__(self, clock: Clock, fate: Fate | None = None) -> None:
        super().__init__(fate)
        self._clock = clock
        self.runs: dict[str, dict[str, Stressor]] = {}
        """Stressors by target id and name."""
        self._since: dict[tuple[str, str], float] = {}
        self.waits = 0.0
        """Share of the time that each stressor waits for a processor."""
        self.grip = 1.0
        """How much of what it shall each stressor takes."""
        self.own_bytes = 0
        """What each stressor needs itself, whatever it is there for."""
        self.cpu_limit, self.memory_limit = 2.0, 1_000_000_000
        """Of every target: CPUs, bytes."""
        self.idle_cpus, self.idle_bytes = 0.1, 50_000_000
        """What every target takes itself."""
        self.oom_kills = 0
        self.confined = True
        self.others: dict[str, int] = {}
        """Processes in the cgroup that are not ours, by target id."""
        self.gone: set[str] = set()
        """Ids of targets that have ended, and their stressors with them."""

    async def running(self, target: Target) -> Sequence[Stressor]:
        """List the stressors of a target."""
        self._check(target)
        return tuple(self.runs.get(target.id, {}).values())

    async def start(self, target: Target, stressor: Stressor) -> None:
        """Let one run; a second one of the same name would be nobody's to end."""
        self._check(target)
        if stressor.name in self.runs.get(target.id, {}):
            raise ValueError(f"{stressor.name} runs already")
        self.fate.change()
        self.runs.setdefault(target.id, {})[stressor.name] = stressor
        self._since[target.id, stressor.name] = self._clock.boottime()

    async def stop(self, target: Target, name: str) -> None:
        """Let one end."""
        self._check(target)
        if name in self.runs.get(target.id, {}):
            self.fate.change()
            del self.runs[target.id][name]

    async def taken(self, target: Target) -> Mapping[str, Taken]:
        """Say what each takes, were it left to itself."""
        self._check(target)
        now = self._clock.boottime()
        return {
            name: Taken(
                cpu_seconds=self._cpus(stressor) * (now - self._since[target.id, name]),
                memory_bytes=self._bytes(stressor),
                waited_seconds=self.waits * (now - self._since[target.id, name]),
            )
            for name, stressor in self.runs.get(target.id, {}).items()
        }

    async def usage(self, target: Target) -> Usage:
        """Add up what the target and its stressors take."""
        taken = (await self.taken(target)).values()
        now = self._clock.boottime()
        return Usage(
            cpu_seconds=self.idle_cpus * now + sum(one.cpu_seconds for one in taken),
            memory_bytes=self.idle_bytes + sum(one.memory_bytes for one in taken),
            cpu_limit=self.cpu_limit,
            memory_limit=self.memory_limit,
            oom_kills=self.oom_kills,
            at=now,
            confined=self.confined,
        )

    def snapshot(self) -> object:
        """Describe every stressor, and who else is there."""
        return ({id_: dict(runs) for id_, runs in self.runs.items() if runs}, dict(self.others))

    def foreign(self) -> object:
        """Describe who else is there."""
        return dict(self.others)

    def _cpus(self, stressor: Stressor) -> float:
        if "--cpu" not in stressor.arguments:
            return 0.0
        percent = FREE_PERCENT if stressor.cpu_percent is None else stressor.cpu_percent
        return self.grip * percent / 100

    def _bytes(self, stressor: Stressor) -> int:
        if "--vm" not in stressor.arguments:
            return self.own_bytes
        held = FREE_BYTES if stressor.memory_bytes is None else stressor.memory_bytes
        return self.own_bytes + int(self.grip * held)

    def _check(self, target: Target) -> None:
        if target.id in self.gone:
            raise TargetGone(f"{target.id}: process {target.pid} has ended")
