"""What an injector may do to the processor and memory that a container is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from squall.injection.world.target import Target


@dataclass(frozen=True, slots=True)
class Stressor:
    """One stress-ng run inside the cgroup of a target."""

    name: str
    """Our mark: unique on the target, carried in the process's environment and in memory."""
    arguments: tuple[str, ...]
    """For stress-ng(1), without the program itself."""
    cpu_percent: int | None = None
    """Load to reach, in percent of `workers` CPUs; the adapter steers to it. None: free."""
    memory_bytes: int | None = None
    """Bytes to hold in the cgroup; the adapter steers to it."""
    workers: int = 1
    oom_score_adj: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters of the target's cgroup at one moment."""

    cpu_seconds: float
    """CPU time used since the cgroup was made; 0 where `confined` is False."""
    memory_bytes: int
    cpu_limit: float | None
    """CPUs that may be used at once; None: no limit."""
    memory_limit: int | None
    oom_kills: int
    at: float
    """Moment of reading, in seconds of boot time."""
    confined: bool = True
    """False where the host has no such controller: nothing is pretended."""


class Stressors(Protocol):
    """stress-ng runs of ours on one target."""

    async def running(self, target: Target) -> Sequence[Stressor]:
        """List ours, as the kernel tells (environment of the processes in the cgroup)."""

    async def start(self, target: Target, stressor: Stressor) -> None:
        """Start one, in the target's cgroup from its first instruction on."""

    async def stop(self, target: Target, name: str) -> None:
        """End one and all its children; SIGKILL after a second. Absent is fine."""

    async def steer(self, target: Target, name: str, *, cpu_percent: float | None) -> None:
        """Change the load of a running stressor without restarting it."""

    async def usage(self, target: Target) -> Usage:
        """Read the target's cgroup."""
