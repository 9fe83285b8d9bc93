"""Is a file fault felt? Counted in the target's own requests, else by accesses of ours.

What the filter counted between two looks says what it does now; where that is nothing, and nothing
can be tried, what it counted since it began: a target may ask once a minute. A fault that was taken
away behind our back is not in force, and counts nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict

from squall.faults.file_io.judgement import judge
from squall.faults.file_io.model import FileFault
from squall.injection.contract import Judgement, Live, Sample, Way
from squall.injection.world import World
from squall.injection.world.files import FileCounters, Visit
from squall.injection.world.target import Target

LOOKS = 4
LOOK_SECONDS = 0.1
"""How often, and how far apart, the counters are read while waiting for requests."""

ENOUGH = 20
"""Requests that make waiting for more, and any of ours, pointless."""

MOST_VISITS = 12
"""How often we go there ourselves where it is left to chance who is hit."""

VISIT_SECONDS = 1.5
"""For all visits of one sample; a call that takes longer is held, and that is all one must know."""

BEFORE_SECONDS = 0.003
"""For a visit before a fault, which must not wait for it."""


class FileProbe:
    """Measures in the target's mount namespace; changes nothing there."""

    def __init__(self, world: World) -> None:
        self._files, self._clock = world.files, world.clock

    async def sample(self, target: Target, live: Live[FileFault]) -> Sample:
        """Look at the counters for a moment; go there where they show too little."""
        first = (await self._files.counters(target)).get(live.source)
        if first is None:
            visit = await self._visit(target, live.fault, BEFORE_SECONDS)
            return Sample(Way.ACTIVE, {"in_force": 0.0, **_seen(visit, live.fault)})
        last = first
        for _ in range(LOOKS):
            await self._clock.sleep(LOOK_SECONDS)
            last = (await self._files.counters(target)).get(live.source, first)
            if last.matched - first.matched >= ENOUGH:
                return Sample(Way.PASSIVE, {"in_force": 1.0, **_counted(last - first)})
        visited = await self._visits(target, live.fault)
        last = (await self._files.counters(target)).get(live.source, last)
        way = Way.ACTIVE if visited else Way.PASSIVE
        now = last - first
        counted = _counted(now if visited or now.matched else last)
        return Sample(way, {"in_force": 1.0, **counted, **visited})

    def judge(self, fault: FileFault, before: Sample | None, during: Sample) -> Judgement:
        """Compare what was asked with what was measured."""
        return judge(fault, before, during)

    async def _visits(self, target: Target, fault: FileFault) -> Mapping[str, float]:
        """Go there once, or where only some requests are hit until something can be said."""
        ends = self._clock.boottime() + VISIT_SECONDS
        total: dict[str, float] = {}
        for _ in range(MOST_VISITS if fault.percent < ALL_PERCENT else 1):
            left = ends - self._clock.boottime()
            if left <= 0:
                break
            seen = _seen(await self._visit(target, fault, left), fault)
            for name, value in seen.items():
                total[name] = (
                    max(total.get(name, 0.0), value)
                    if name in _LONGEST
                    else (total.get(name, 0.0) + value)
                )
            if not seen or "waiting_ms" in seen:
                break
        return total

    async def _visit(self, target: Target, fault: FileFault, within_seconds: float) -> Visit:
        return await self._files.visit(
            target, fault.volume, fault.path, fault.methods, within_seconds=within_seconds
        )


ALL_PERCENT = 100
_LONGEST = {"felt_ms", "waiting_ms"}


def _counted(counters: FileCounters) -> dict[str, float]:
    values = {name: float(value) for name, value in asdict(counters).items()}
    delay_us = values.pop("delay_us_sum")
    if counters.delayed:
        values["delay_ms"] = delay_us / counters.delayed / 1000
    return values


def _seen(visit: Visit, fault: FileFault) -> dict[str, float]:
    """Put what our own calls felt into numbers; nothing where there was no call."""
    if not visit.accesses:
        return {}
    back = [access for access in visit.accesses if access.errno is not None]
    values = {
        "calls": float(len(visit.accesses)),
        "calls_failed": float(sum(1 for access in back if access.errno)),
        "calls_failed_as_asked": float(sum(1 for a in back if a.errno and a.errno == fault.errno)),
    }
    if back:
        values["felt_ms"] = max(access.seconds for access in back) * 1000
    if len(back) < len(visit.accesses):
        waiting = (access.seconds for access in visit.accesses if access.errno is None)
        values["waiting_ms"] = max(waiting) * 1000
    if fault.attributes and visit.attributes:
        pairs = [
            (asked, getattr(visit.attributes, name))
            for name in type(fault.attributes).__slots__
            if (asked := getattr(fault.attributes, name)) is not None
        ]
        values["attributes_told"] = float(sum(1 for asked, told in pairs if asked == told))
        values["attributes_true"] = float(sum(1 for asked, told in pairs if asked != told))
    return values
