"""What the counters of a container say about the stress it is under. Pure."""

from collections.abc import Mapping

from squall.faults.stress.merge import held_by, load_of
from squall.faults.stress.model import CpuStressor, MemoryStressor, StressFault
from squall.injection.contract import Judgement, Verdict

Values = Mapping[str, float]

NEAR = 0.1
"""A tenth: load comes in slices, and stress-ng itself needs some memory too."""
LEAST_PERCENT, LEAST_BYTES = 2.0, 8_000_000.0
"""Differences that are never worth a word."""
GROWS = 0.005
"""Of what was asked, within one sample: memory that is being filled grows by more than that."""
_MEGABYTE = 1_000_000


def judge(fault: StressFault, before: Values, during: Values) -> Judgement:
    """Judge every part of a fault; the worst one counts."""
    asked, parts = _asked(fault, during), []
    if not during.get("confined", 0.0):
        reason = "this host has no cgroup controller that counts for the container"
        return Judgement(Verdict.INCONCLUSIVE, asked, reason)
    if fault.cpu:
        parts.append(_cpu(fault.cpu, during))
    if fault.memory:
        parts.append(_memory(fault.memory, before, during))
    if not parts:
        parts.append((Verdict.INCONCLUSIVE, f"{_load(during)}, {_held(during)}"))
    order = (Verdict.CONFIRMED, Verdict.INCONCLUSIVE, Verdict.MISMATCH)
    worst = max((verdict for verdict, _ in parts), key=order.index)
    return Judgement(worst, asked, "; ".join(text for _, text in parts))


def _cpu(cpu: CpuStressor, during: Values) -> tuple[Verdict, str]:
    used, total = during.get("stressor_cpu_percent"), during.get("cgroup_cpu_percent", 0.0)
    if used is None:
        return Verdict.MISMATCH, "no stressor runs for the processor"
    limit = during.get("cpu_limit_percent", 0.0)
    load = load_of(cpu)
    text = f"cpu {used:.1f} % of one processor, {total:.1f} % in the container"
    if total < used * (1 - NEAR) - LEAST_PERCENT:
        return Verdict.MISMATCH, f"{text}: the stressor is not in the container's cgroup"
    if _near(used, load, LEAST_PERCENT):
        return Verdict.CONFIRMED, text
    if used < load and total >= limit * (1 - NEAR):
        return Verdict.CONFIRMED, f"{text}: its limit is {limit:g} %"
    waited = during.get("stressor_waited_percent", 0.0)
    if used < load <= (used + waited) / (1 - NEAR):
        text += f"; {waited:.1f} % were waited for"
        return Verdict.INCONCLUSIVE, f"{text}: others keep this host busy"
    return Verdict.MISMATCH, text


def _memory(memory: MemoryStressor, before: Values, during: Values) -> tuple[Verdict, str]:
    held, kills = during.get("stressor_memory_bytes", 0.0), during.get("oom_kills", 0.0)
    total = during.get("cgroup_memory_bytes", 0.0)
    limit = during.get("memory_limit_bytes", 0.0)
    killed = kills - before.get("oom_kills", kills)
    if killed > 0:
        # The kernel itself says that there was no more to be had.
        what = f"{killed:.0f} processes were killed" if killed > 1 else "a process was killed"
        return Verdict.CONFIRMED, f"memory ran out at {limit / _MEGABYTE:.0f} MB: {what}"
    text = f"memory {held / _MEGABYTE:.0f} MB, {total / _MEGABYTE:.0f} MB in the container"
    size = held_by(memory, int(limit))
    if size is None:
        return (Verdict.INCONCLUSIVE if held else Verdict.MISMATCH), text
    if total < held * (1 - NEAR) - LEAST_BYTES:
        return Verdict.MISMATCH, f"{text}: the stressor is not in the container's cgroup"
    if _near(held, size, LEAST_BYTES):
        return Verdict.CONFIRMED, text
    if held < size and during.get("stressor_memory_growth_bytes", 0.0) >= GROWS * size:
        return Verdict.INCONCLUSIVE, f"{text}: it is still being filled"
    return Verdict.MISMATCH, text


def _asked(fault: StressFault, during: Values) -> str:
    if fault.arguments:
        return f"stress-ng {' '.join(fault.arguments)}"
    asked = []
    if fault.cpu:
        asked.append(f"cpu {load_of(fault.cpu):g} % of one processor")
    if fault.memory:
        size = held_by(fault.memory, int(during.get("memory_limit_bytes", 0.0)))
        asked.append("memory" if size is None else f"memory {size / _MEGABYTE:.0f} MB")
    return ", ".join(asked)


def _load(during: Values) -> str:
    return f"cpu {during.get('stressor_cpu_percent', 0.0):.1f} % of one processor"


def _held(during: Values) -> str:
    return f"memory {during.get('stressor_memory_bytes', 0.0) / _MEGABYTE:.0f} MB"


def _near(measured: float, asked: float, least: float) -> bool:
    return abs(measured - asked) <= max(NEAR * asked, least)
