"""Is a network fault felt? Counted in the target's own traffic, else by pings of ours.

What the means counted between two looks says what it does now; a fault that was taken away behind
our back counts nothing. Where so little flows that no look is long enough, and nobody can be
pinged, all that was counted since the fault began is looked at.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

from squall.faults.network.judgement import FEWEST, judge
from squall.faults.network.model import NetworkFault
from squall.injection.contract import Judgement, Live, Sample, Way
from squall.injection.world import World
from squall.injection.world.network import Counters, Impairment, Ping
from squall.injection.world.target import Target

LOOKS = 4
LOOK_SECONDS = 0.1
"""How often, and how far apart, the counters are read while waiting for traffic."""

ENOUGH = 20
"""Packets that make waiting for more traffic pointless, where every packet is hit alike."""

FEW_PINGS, MANY_PINGS = 5, 60
"""Pings sent where the effect is certain, and where it is left to chance."""

LONGEST_PINGS_SECONDS = 5.0

BEFORE_PINGS_SECONDS = 0.003
"""For all pings before a fault, which must not wait for them; a path that takes longer stays
unknown."""


class NetworkProbe:
    """Measures inside the target."""

    def __init__(self, world: World) -> None:
        self._network, self._clock = world.network, world.clock

    async def sample(self, target: Target, live: Live[NetworkFault]) -> Sample:
        """Look at the counters for a moment; ping where they show too little."""
        first = (await self._network.counters(target)).get(live.source)
        if first is None:
            return await self._before(target, live.fault)
        began = self._clock.boottime()
        last = first
        for _ in range(LOOKS):
            await self._clock.sleep(LOOK_SECONDS)
            last = (await self._network.counters(target)).get(live.source, Counters())
            if last.packets - first.packets >= ENOUGH and not _takes_long(live.fault):
                break
        window = self._clock.boottime() - began
        counted = _counted(first, last, window)
        enough = counted["packets"] >= ENOUGH and _needed(live.fault) <= counted.keys()
        addresses = () if enough else await self._reachable(target, live.fault)
        if not addresses:
            # Speed is of one look alone: an average over silence says nothing.
            speed = {name: counted[name] for name in ("bytes", "window_s") if name in counted}
            since = _counted(Counters(), last, window) | speed | {"since_begin": 1.0}
            seldom = counted["packets"] < FEWEST
            return Sample(Way.PASSIVE, {"in_force": 1.0, **(since if seldom else counted)})
        pinged = await self._ping(target, live.fault, addresses)
        last = (await self._network.counters(target)).get(live.source, Counters())
        counted = _counted(first, last, self._clock.boottime() - began)
        return Sample(Way.ACTIVE, {"in_force": 1.0, **counted, **pinged})

    def judge(self, fault: NetworkFault, before: Sample | None, during: Sample) -> Judgement:
        """Compare what was asked with what was measured."""
        return judge(fault, before, during)

    async def _before(self, target: Target, fault: NetworkFault) -> Sample:
        """The fault is not in force: how the path is without it."""
        addresses = await self._reachable(target, fault)
        pinged: Mapping[str, float] = {}
        if addresses:
            pings = await self._ping_each(target, addresses, FEW_PINGS, BEFORE_PINGS_SECONDS)
            pinged = _pinged(pings, 0.0)
        return Sample(Way.ACTIVE, {"in_force": 0.0, **pinged})

    async def _reachable(self, target: Target, fault: NetworkFault) -> Sequence[str]:
        """Find what to ping: addresses at the other end, or, where all is hit, the next router."""
        device = everywhere(fault)
        if device is None:
            return reachable(fault, await self._network.addresses(target))
        router = await self._network.gateway(target, device)
        return () if router is None else (router,)

    async def _ping(
        self, target: Target, fault: NetworkFault, addresses: Sequence[str]
    ) -> Mapping[str, float]:
        impairment = fault.shape.impairment if fault.shape else Impairment()
        delay_s = (impairment.delay_us + impairment.jitter_us) / 1e6
        chance = left_to_chance(fault)
        count = MANY_PINGS if chance else FEW_PINGS
        # Both ends may delay, and replies that never come are waited for in vain.
        seconds = min(2 * delay_s + (1.0 if chance else 0.5), LONGEST_PINGS_SECONDS)
        return _pinged(await self._ping_each(target, addresses, count, seconds), delay_s * 1000)

    async def _ping_each(
        self, target: Target, addresses: Sequence[str], count: int, seconds: float
    ) -> Sequence[Ping]:
        """Ping all of them at the same time."""
        ping = self._network.ping
        return await asyncio.gather(
            *(ping(target, each, count=count, within_seconds=seconds) for each in addresses)
        )


def reachable(fault: NetworkFault, own: Collection[str] = ()) -> Sequence[str]:
    """Find an address at the other end that the fault hits on every port, one of each family.

    A path that is cut by IPv4 alone is not cut: whoever looks a name up takes the other one.

    Args:
        fault: what is asked.
        own: addresses of the target itself, which may be among its peers; what it sends there never
            leaves it, so no fault is felt on the way.
    """
    ends = [*(cut.peers for cut in fault.cuts), fault.shape.peers if fault.shape else ()]
    found: dict[str, str] = {}
    for endpoint in (endpoint for peers in ends for endpoint in peers or ()):
        address, _, length = endpoint.host.partition("/")
        if address in own or endpoint.translated:
            continue
        if not endpoint.port and length == ("128" if ":" in address else "32"):
            found.setdefault(length, address)
    return tuple(found.values())


def everywhere(fault: NetworkFault) -> str | None:
    """Name the device on which the fault hits everything, empty for any; None if it does not."""
    parts = (*fault.cuts, *((fault.shape,) if fault.shape else ()))
    return next((part.device for part in parts if part.peers is None), None)


def left_to_chance(fault: NetworkFault) -> bool:
    """Does the fault hit some packets and not others?"""
    return bool(_needed(fault) & {"dropped", "duplicated", "corrupted", "reordered"})


def _takes_long(fault: NetworkFault) -> bool:
    """Does a longer look tell more? Of shares and speeds it does."""
    impairment = fault.shape.impairment if fault.shape else Impairment()
    return bool(left_to_chance(fault) or impairment.rate or impairment.bandwidth_rate)


def _needed(fault: NetworkFault) -> set[str]:
    """What must be counted, so that traffic alone proves the fault."""
    impairment = fault.shape.impairment if fault.shape else Impairment()
    needed = {
        "delay_ms": impairment.delay_us,
        "dropped": impairment.loss,
        "duplicated": impairment.duplicate,
        "corrupted": impairment.corrupt,
        "reordered": impairment.reorder,
    }
    return {name for name, asked in needed.items() if asked}


def _counted(first: Counters, last: Counters, window_s: float) -> dict[str, float]:
    """What was counted between two looks. A count that fell was started anew in between."""
    before = asdict(first)
    values = {
        name: float(max(0, count - (before[name] or 0)))
        for name, count in asdict(last).items()
        if count is not None
    }
    held_us = values.pop("delay_us_sum", 0.0)
    if values.get("delayed"):
        values["delay_ms"] = held_us / values["delayed"] / 1000
    return {"window_s": window_s, **values}


def _pinged(pinged: Sequence[Ping], delay_ms: float) -> dict[str, float]:
    """Add up what came of pings to several addresses; the quickest path stands for all."""
    values = {
        "pings_sent": float(sum(one.sent for one in pinged)),
        "pings_received": float(sum(one.received for one in pinged)),
        "pings_refused": float(sum(one.refused for one in pinged)),
        "pings_duplicated": float(sum(one.duplicates for one in pinged)),
    }
    if medians := [sorted(one.rtt_ms)[len(one.rtt_ms) // 2] for one in pinged if one.rtt_ms]:
        values["rtt_ms"] = min(medians)
        early = sum(rtt < delay_ms / 2 for one in pinged for rtt in one.rtt_ms)
        values["pings_early"] = float(early)
    return values
