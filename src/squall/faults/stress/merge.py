"""From live faults to the runs of stress-ng that carry them out. Pure."""

import shlex
from collections.abc import Sequence

from squall.api.units import Size
from squall.faults.stress.model import CpuStressor, MemoryStressor, StressFault
from squall.injection.contract import Live
from squall.injection.world.stressors import Stressor

FULL_PERCENT = 100
CPU, MEMORY, OWN = "cpu", "memory", "own"


def wanted(live: Sequence[Live[StressFault]], memory_limit: int) -> dict[str, Stressor]:
    """Give every run that shall be there, by name: each fault has its own, so they add up.

    Args:
        live: all faults on one target; their order makes no difference.
        memory_limit: bytes that percentages are taken of.
    """
    found: list[Stressor] = []
    for one in live:
        fault, source = one.fault, one.source
        if fault.arguments:
            found.append(Stressor(name_of(source, OWN), fault.arguments))
        if fault.cpu:
            found.append(_cpu(name_of(source, CPU), fault.cpu))
        if fault.memory:
            found.append(_memory(name_of(source, MEMORY), fault.memory, memory_limit))
    return {stressor.name: stressor for stressor in found}


def name_of(source: str, part: str) -> str:
    """Name the run that carries out one part of a fault."""
    return f"{source}:{part}"


def load_of(cpu: CpuStressor) -> float:
    """Percent of one processor that all workers use together."""
    return float(cpu.workers * (FULL_PERCENT if cpu.load is None else cpu.load))


def held_by(memory: MemoryStressor, memory_limit: int) -> int | None:
    """Bytes that all workers hold together; None where stress-ng decides."""
    return memory.size.of(memory_limit) if isinstance(memory.size, Size) else None


def _cpu(name: str, cpu: CpuStressor) -> Stressor:
    # Square roots keep the arithmetic units busy and the caches out of it.
    arguments = ("--cpu", str(cpu.workers), "--cpu-method", "sqrt", *_words(cpu.options))
    full = cpu.load is None or cpu.load == FULL_PERCENT
    return Stressor(name, arguments, None if full else load_of(cpu), workers=cpu.workers)


def _memory(name: str, memory: MemoryStressor, memory_limit: int) -> Stressor:
    # Written once, then held without another access, so that it costs memory and no processor.
    holding = ("--vm", str(memory.workers), "--vm-keep", "--vm-hang", "0")
    return Stressor(
        name,
        (*holding, *_words(memory.options)),
        memory_bytes=held_by(memory, memory_limit),
        workers=memory.workers,
        oom_score_adj=memory.oom_score_adj,
    )


def _words(options: Sequence[str]) -> tuple[str, ...]:
    """Split options that carry their value with them, as `--cpu-method all`."""
    return tuple(word for option in options for word in shlex.split(option))
