"""Is a fault in names felt? Counted in the target's own look-ups, else by look-ups of ours.

What was counted between two looks says what the fault does now.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict

from squall.faults.dns.judgement import as_asked, judge
from squall.faults.dns.model import LONGEST_NAME, DNSFault
from squall.injection.contract import Judgement, Live, Sample, Way
from squall.injection.world import World
from squall.injection.world.names import TYPES, NameCounters, Reply
from squall.injection.world.target import Target

LOOKS = 4
LOOK_SECONDS = 0.1
"""How often, and how far apart, the counters are read while waiting for look-ups."""

CERTAIN, BY_CHANCE = 3, 40
"""Look-ups that are enough, and made by us where the target makes fewer: where every one is hit,
and where it is left to chance."""

PATIENCE_SECONDS = 0.5
"""For an answer, beside the delay that was asked for."""
LONGEST_SECONDS = 5.0

ANY_NAME = "squall-probe.invalid"
"""Where every name is hit; nobody can own it (RFC 6761)."""
_LONGEST_LABEL = 63

_Counted = Mapping[str, NameCounters]


class DNSProbe:
    """Measures inside the target."""

    def __init__(self, world: World) -> None:
        self._names, self._clock = world.names, world.clock

    async def sample(self, target: Target, live: Live[DNSFault]) -> Sample:
        """Look at the counters for a moment; make look-ups where they show too little."""
        first = await self._names.counters(target)
        if live.source not in first:
            return Sample(Way.ACTIVE, {"in_force": 0.0})
        enough = CERTAIN if live.fault.percent == 100 else BY_CHANCE  # noqa: PLR2004  (percent)
        last = first
        for _ in range(LOOKS):
            await self._clock.sleep(LOOK_SECONDS)
            last = await self._names.counters(target)
            if _risen(first, last, live.source).get("matched", 0) >= enough:
                break
        counted = _risen(first, last, live.source)
        name = probe_name(live.fault)
        if counted["matched"] >= enough or name is None:
            return Sample(Way.PASSIVE, {"in_force": 1.0, **counted})
        asked = await self._ask(target, live.fault, name, enough)
        counted = _risen(first, await self._names.counters(target), live.source)
        return Sample(Way.ACTIVE, {"in_force": 1.0, **counted, **asked})

    def judge(self, fault: DNSFault, before: Sample | None, during: Sample) -> Judgement:
        """Compare what was asked with what was measured; look-ups before it say nothing more."""
        return judge(fault, during)

    async def _ask(
        self, target: Target, fault: DNSFault, name: str, count: int
    ) -> Mapping[str, float]:
        """Look a name up so many times at once."""
        held_s = (fault.delay_us + fault.jitter_us) / 1e6
        within = min(held_s + PATIENCE_SECONDS, LONGEST_SECONDS)
        wanted = fault.types[0] if fault.types else TYPES["A"]
        try:
            async with asyncio.TaskGroup() as asking:
                tasks = [
                    asking.create_task(self._names.ask(target, name, wanted, within_seconds=within))
                    for _ in range(count)
                ]
        except ExceptionGroup as failed:  # what kept one from asking tells what to do next
            raise failed.exceptions[0] from failed
        replies = [reply for task in tasks if (reply := task.result()) is not None]
        return _asked(fault, replies, waited=within > held_s)


def probe_name(fault: DNSFault) -> str | None:
    """A name that the fault hits; None where a pattern leaves no room for one."""
    if not fault.patterns:
        return ANY_NAME
    for pattern in fault.patterns:
        name = pattern.replace("*", "squall-probe").replace("?", "x")
        labels = name.split(".")
        if len(name) <= LONGEST_NAME and all(0 < len(one) <= _LONGEST_LABEL for one in labels):
            return name
    return None


def _asked(fault: DNSFault, replies: list[Reply], *, waited: bool) -> Mapping[str, float]:
    answered = [reply for reply in replies if reply.code is not None]
    # Of a reply that comes later than anybody waits, nothing can be said.
    felt = [reply for reply in replies if as_asked(fault, reply) or not waited]
    values = {
        "asked": float(len(replies)),
        "replies": float(len(answered)),
        "felt": float(len(felt)),
    }
    if answered:
        times = sorted(reply.after_ms for reply in answered)
        values["reply_ms"] = times[len(times) // 2]
    return values


def _risen(first: _Counted, last: _Counted, source: str) -> dict[str, float]:
    """What was counted between two looks, and what other faults did with queries meanwhile."""
    values = _difference(first, last, source)
    held_us = values.pop("delay_us_sum")
    if values["delayed"]:
        values["delay_ms"] = held_us / values["delayed"] / 1000
    others = (_difference(first, last, other) for other in last if other != source)
    values["by_others"] = sum(other["answered"] + other["swallowed"] for other in others)
    return values


def _difference(first: _Counted, last: _Counted, source: str) -> dict[str, float]:
    before = asdict(first.get(source, NameCounters()))
    now = asdict(last.get(source, NameCounters()))
    # A count that fell was started anew in between.
    return {name: float(max(0, count - before[name])) for name, count in now.items()}
