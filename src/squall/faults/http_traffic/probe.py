"""Is an HTTP fault felt? Counted in the target's own traffic, else by a request of ours.

What was counted between two looks says what the fault does now; where that is nothing, and nothing
can be tried, what was counted since it began: a request may come once a minute.
"""

from collections.abc import Mapping
from dataclasses import asdict

from squall.errors import TryAgain
from squall.faults.http_traffic.judgement import every_one_is_meant, judge
from squall.faults.http_traffic.merge import ALL
from squall.faults.http_traffic.model import HTTPFault
from squall.injection.contract import Judgement, Live, Sample, Way
from squall.injection.world import World
from squall.injection.world.http import Answer, Counters
from squall.injection.world.target import Target

LOOKS = 4
LOOK_SECONDS = 0.1
"""How often, and how far apart, the counters are read while waiting for traffic."""

FEW, ENOUGH = 3, 20
"""Hit exchanges that make waiting for more pointless: where every one is hit alike, and where that
is left to chance."""

HARMLESS = ("GET", "HEAD", "OPTIONS")
"""Methods of requests that change nothing; RFC 9110 calls them safe."""

OWN_SECONDS = 1.0
"""For a request of ours, beyond what the fault holds it."""

LONGEST_SECONDS = 2.0
"""A fault that holds requests longer is not tried by one of ours: a sample may not take so long."""

BEFORE_SECONDS = 0.003
"""For a request of ours before a fault, which must not wait for it."""


class HTTPProbe:
    """Measures inside the target."""

    def __init__(self, world: World) -> None:
        self._http, self._clock = world.http, world.clock

    async def sample(self, target: Target, live: Live[HTTPFault]) -> Sample:
        """Look at the counters for a moment; where nothing was hit, send a request of ours."""
        first = (await self._http.counters(target)).get(live.source)
        fault = live.fault
        if first is None:
            answer = await self._ask(target, fault, BEFORE_SECONDS) if _may_ask(fault) else None
            return Sample(Way.ACTIVE, {"in_force": 0.0, **_answered(fault, answer)})
        last = first
        for _ in range(LOOKS):
            await self._clock.sleep(LOOK_SECONDS)
            last = (await self._http.counters(target)).get(live.source, Counters())
            if last.since(first).matched >= (FEW if _certain(fault) else ENOUGH):
                break
        now = last.since(first)
        idle = not (now.matched or now.sealed or now.foreign)
        if not idle or not (_may_ask(fault) and _certain(fault)):
            return Sample(Way.PASSIVE, {"in_force": 1.0, **_counted(last if idle else now)})
        answer = await self._ask(target, fault, fault.delay_us / 1e6 + OWN_SECONDS)
        last = (await self._http.counters(target)).get(live.source, Counters())
        values = {**_counted(last.since(first)), **_answered(fault, answer)}
        way = Way.PASSIVE if answer is None else Way.ACTIVE
        return Sample(way, {"in_force": 1.0, **values})

    def judge(self, fault: HTTPFault, before: Sample | None, during: Sample) -> Judgement:
        """Compare what was asked with what was measured."""
        return judge(fault, before, during)

    async def _ask(self, target: Target, fault: HTTPFault, within_seconds: float) -> Answer | None:
        """Send a request that the fault would hit; None where nobody listens."""
        try:
            return await self._http.request(
                target,
                fault.port,
                method=fault.method or "GET",
                path=_some_path(fault.path or "/"),
                headers=fault.request_headers or {},
                within_seconds=within_seconds,
            )
        except TryAgain:
            return None


def _certain(fault: HTTPFault) -> bool:
    """Is every exchange hit that is meant?"""
    return fault.percent is None or fault.percent >= ALL


def _may_ask(fault: HTTPFault) -> bool:
    """Would a request of ours be hit, change nothing in the target, and be over soon?

    Of TLS and gRPC we speak none, and of replies nobody knows which code they have.
    """
    return (
        (fault.method or "GET") in HARMLESS
        and not (fault.outgoing or fault.tls or fault.ends_calls)
        and (fault.path or "/").startswith(("/", "*"))
        and fault.delay_us / 1e6 + OWN_SECONDS <= LONGEST_SECONDS
    )


def _some_path(pattern: str) -> str:
    """Find a path that a pattern fits."""
    path = pattern.replace("*", "").replace("?", "-")
    return path if path.startswith("/") else f"/{path}"


def _counted(counters: Counters) -> dict[str, float]:
    values = {name: float(count) for name, count in asdict(counters).items()}
    held_us = values.pop("delay_us_sum")
    if counters.delayed:
        values["delay_ms"] = held_us / counters.delayed / 1000
    return values


def _answered(fault: HTTPFault, answer: Answer | None) -> Mapping[str, float]:
    if answer is None:
        return {}
    # A response that nobody can foresee may be none that is meant.
    foreseen = fault.target == "Request" or every_one_is_meant(fault)
    return {
        "request_ms": answer.seconds * 1000,
        "request_status": float(answer.status or 0),
        "request_fits": float(foreseen),
    }
