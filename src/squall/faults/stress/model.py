"""StressChaos: what may be asked, and what each target gets of it."""

import shlex
from collections.abc import Iterator
from typing import Annotated

from pydantic import BeforeValidator, Field

from squall.api.experiment import ExperimentSpec
from squall.api.selector import ContainerSelector
from squall.api.units import MemorySize
from squall.api.wire import Fault, Flaw, Wire, written
from squall.injection.kind import Peers

MOST_WORKERS = 8192
Workers = Annotated[int, Field(le=MOST_WORKERS)]


class CpuStressor(Wire):
    """Keep processors busy."""

    workers: Workers
    """How many processes compute; each can fill one processor."""
    load: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percent of one processor that each worker uses; 100 by default."""
    options: list[str] = Field(default_factory=list)
    """More options for stress-ng(1)."""

    def flaws(self) -> Iterator[Flaw]:
        """Check that somebody works."""
        if self.workers <= 0:
            yield Flaw("workers", "workers should always be positive")


class MemoryStressor(Wire):
    """Fill memory, and hold it."""

    workers: Workers
    """How many processes share the work."""
    size: Annotated[MemorySize | None, BeforeValidator(lambda value: value or None)] = None
    """How much all workers hold together: `256MB`, or `70%` of the container's limit (of the
    host's memory where it has none)."""
    options: list[str] = Field(default_factory=list)
    """More options for stress-ng(1)."""
    oom_score_adj: Annotated[int, Field(ge=-1000, le=1000)] = written(0)
    """Whom the kernel kills first when memory runs out: 1000 the stressor, -1000 anybody else."""

    def flaws(self) -> Iterator[Flaw]:
        """Check that somebody works."""
        if self.workers <= 0:
            yield Flaw("workers", "workers should always be positive")


class Stressors(Wire):
    """What is used up; at least one of the two."""

    cpu: CpuStressor | None = None
    """Processor time."""
    memory: MemoryStressor | None = None
    """Memory."""

    def flaws(self) -> Iterator[Flaw]:
        """Check that there is something to do."""
        if self.cpu is None and self.memory is None:
            yield Flaw("", "missing stressors")


class StressChaosSpec(ExperimentSpec, ContainerSelector):
    """Use up the processor and the memory that containers are given."""

    stressors: Stressors | None = None
    """What is used up."""
    stressng_stressors: str = ""
    """Arguments for stress-ng(1), in place of `stressors`."""

    def flaws(self) -> Iterator[Flaw]:
        """Check that there is something to do, and that it can be read."""
        yield from super().flaws()
        if self.stressors is None and not self.stressng_stressors.strip():
            yield Flaw("stressors", "missing stressors")
        try:
            shlex.split(self.stressng_stressors)
        except ValueError as unreadable:
            yield Flaw("stressngStressors", f"cannot be split into arguments: {unreadable}")


class StressFault(Fault):
    """What one container suffers."""

    cpu: CpuStressor | None = None
    """Processor time to use up."""
    memory: MemoryStressor | None = None
    """Memory to hold."""
    arguments: tuple[str, ...] = ()
    """For stress-ng(1), in place of the other two."""


def share(spec: StressChaosSpec, selector_key: str, peers: Peers) -> StressFault:  # noqa: ARG001
    """Give every target the same; there is one role, and nobody has to know the others."""
    if spec.stressng_stressors.strip():
        return StressFault(arguments=tuple(shlex.split(spec.stressng_stressors)))
    asked = spec.stressors or Stressors()
    return StressFault(cpu=asked.cpu, memory=asked.memory)


def needed(spec: StressChaosSpec) -> tuple[str, ...]:
    """Tell what is used up; of stress-ng's own arguments nobody knows."""
    if spec.stressng_stressors.strip() or spec.stressors is None:
        return ("stress:cpu", "stress:memory")
    asked = {"stress:cpu": spec.stressors.cpu, "stress:memory": spec.stressors.memory}
    return tuple(need for need, stressor in asked.items() if stressor is not None)
