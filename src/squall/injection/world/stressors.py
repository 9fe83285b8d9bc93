"""What an injector may do to the processor and memory that a container is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from squall.injection.world.target import Target


@dataclass(frozen=True, slots=True)
class Stressor:
    """One stress-ng run inside the cgroup of a target."""

    name: str
    """Our mark: unique on the target, carried in the process's environment."""
    arguments: tuple[str, ...]
    """For stress-ng(1), without the program itself."""
    cpu_percent: float | None = None
    """Load to hold, in percent of one processor, of all its workers together. None: free."""
    memory_bytes: int | None = None
    """Memory to hold, of all its workers together. None: as the arguments say."""
    workers: int = 1
    """How many processes share the work."""
    oom_score_adj: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters of the target's cgroup at one moment."""

    cpu_seconds: float
    """CPU time used since the cgroup was made; 0 where `confined` is False."""
    memory_bytes: int
    """Memory in use, without files that could be dropped; 0 where `confined` is False."""
    cpu_limit: float
    """CPUs that may be used at once: its limit, else all of the host's."""
    memory_limit: int
    """Bytes: its limit, else all of the host's."""
    oom_kills: int
    """Processes that were killed because memory ran out, since the cgroup was made."""
    at: float
    """Moment of reading, in seconds of boot time."""
    confined: bool = True
    """False where the host has no such controller: nothing is pretended."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one stressor takes, of all its processes in the target's cgroup."""

    cpu_seconds: float
    """CPU time used so far by those that run now."""
    memory_bytes: int
    """Memory held now; shared pages count once for each process."""
    waited_seconds: float = 0.0
    """Time that they could have run, but no processor was free."""


class Stressors(Protocol):
    """stress-ng runs of ours on one target; they end with its container."""

    async def running(self, target: Target) -> Sequence[Stressor]:
        """List ours, as the kernel tells (environment of the processes in the cgroup)."""

    async def start(self, target: Target, stressor: Stressor) -> None:
        """Start one, in the target's cgroup from its first instruction on."""

    async def stop(self, target: Target, name: str) -> None:
        """End one and all its children; SIGKILL after a second. Absent is fine."""

    async def taken(self, target: Target) -> Mapping[str, Taken]:
        """Measure ours, by name; the time is that of the kernel's scheduler."""

    async def usage(self, target: Target) -> Usage:
        """Read the target's cgroup."""
