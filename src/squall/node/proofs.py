"""Measuring whether the faults of one lane are felt: before, during and after."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from squall.api.node_fault import Proof
from squall.clock import Clock
from squall.errors import SquallError, TargetGone
from squall.injection.contract import Judgement, Live, Probe, Sample, Verdict, Way
from squall.injection.world.target import Target
from squall.node.assignments import Assignment
from squall.node.reports import Reports

BEFORE_SECONDS = 0.005
"""A fault must act within 15 ms, so what has not been sampled by then stays unknown."""

SAMPLE_SECONDS = 3.0
EAGER_SECONDS, EAGER_TRIES = 0.5, 10
"""Until the first verdict: traffic that would prove the fault may take a moment to come."""

WATCH_SECONDS = 3.0
"""While it lives: a fault that somebody took away is noticed within 5 seconds."""


@dataclass(slots=True)
class _Tracked:
    assignment: Assignment
    before: Sample | None
    next_at: float
    tries: int = 0
    concluded: bool = False
    """It was Confirmed or a Mismatch once, which a quiet moment later does not take away."""

    def settled(self, verdict: Verdict) -> bool:
        """Is there no reason to look again soon? What was struck takes a moment to end."""
        if self.assignment.one_shot:
            return verdict is Verdict.CONFIRMED
        return self.concluded or verdict is not Verdict.INCONCLUSIVE


class Proofs:
    """Measures the faults of one lane.

    Args:
        probe: gives the probe of the kind, if it has one; asked only when one is needed.
        clock: time.
        reports: learn what was measured.
    """

    def __init__(
        self, probe: Callable[[], Probe[Any] | None], clock: Clock, reports: Reports
    ) -> None:
        self._probe, self._clock, self._reports = probe, clock, reports
        self._tracked: dict[str, _Tracked] = {}

    async def before(self, target: Target, fresh: Iterable[Assignment]) -> None:
        """Sample what is there before faults begin, as far as that takes no time."""
        probe = self._probe()
        wanted = [a for a in fresh if a.proof and a.source not in self._tracked]
        if probe is None or not wanted:
            return
        samples: dict[str, Sample] = {}

        async def one(assignment: Assignment) -> None:
            with suppress(SquallError):
                samples[assignment.source] = await probe.sample(target, _live(assignment))

        adopted = [a for a in wanted if (r := self._reports.record(a)) and r.phase == "Injected"]
        with suppress(TimeoutError):
            async with asyncio.timeout(BEFORE_SECONDS), asyncio.TaskGroup() as group:
                for assignment in wanted:
                    if assignment not in adopted:
                        group.create_task(one(assignment))
        now = self._clock.boottime()
        for assignment in wanted:
            sample = samples.get(assignment.source) or self._reported(assignment)
            self._tracked[assignment.source] = _Tracked(assignment, sample, now)

    def drop(self, assignment: Assignment) -> None:
        """Stop measuring a strike that was not carried out."""
        self._tracked.pop(assignment.source, None)

    def clear(self) -> None:
        """Stop measuring anything: there is no target left to measure in."""
        self._tracked.clear()

    def keep_only(self, live: Sequence[Assignment]) -> None:
        """Stop measuring faults that do not act."""
        by_source = {assignment.source: assignment for assignment in live}
        for source, tracked in list(self._tracked.items()):
            if source in by_source:
                if tracked.assignment != by_source[source]:
                    tracked.tries, tracked.next_at = 0, self._clock.boottime()
                    tracked.concluded = False
                tracked.assignment = by_source[source]
            elif not tracked.assignment.one_shot:
                del self._tracked[source]

    def due_in(self) -> float | None:
        """Seconds until the next measurement; None when there is none to make."""
        moments = [tracked.next_at for tracked in self._tracked.values()]
        return max(0.0, min(moments) - self._clock.boottime()) if moments else None

    async def measure(self, target: Target) -> bool:
        """Sample and judge what is due; False when a fault is not felt as asked.

        Raises:
            TargetGone: the target is no longer what was resolved.
        """
        now, felt = self._clock.boottime(), True
        for tracked in [t for t in self._tracked.values() if t.next_at <= now]:
            judgement, sample = await self._judged(target, tracked)
            tracked.tries += 1
            again = tracked.tries < EAGER_TRIES and not tracked.settled(judgement.verdict)
            tracked.next_at = self._clock.boottime() + (EAGER_SECONDS if again else WATCH_SECONDS)
            if tracked.assignment.one_shot:
                if again:
                    continue
                del self._tracked[tracked.assignment.source]
            idle = judgement.verdict is Verdict.INCONCLUSIVE
            if not (idle and tracked.concluded):
                proof = self._proof(tracked, judgement, sample)
                self._reports.proved(tracked.assignment, proof, passing=again)
            tracked.concluded = tracked.concluded or not idle
            felt = felt and judgement.verdict is not Verdict.MISMATCH
        return felt

    async def after(self, target: Target, ended: Iterable[Assignment]) -> None:
        """Sample once what is there after faults have ended; what cannot be had is left out."""
        probe = self._probe()
        for assignment in ended:
            record = self._reports.record(assignment)
            if probe is None or record is None or record.proof is None:
                continue
            with suppress(SquallError, TimeoutError):
                async with asyncio.timeout(SAMPLE_SECONDS):
                    sample = await probe.sample(target, _live(assignment))
                values = dict(sample.values)
                self._reports.proved(assignment, record.proof.model_copy(update={"after": values}))

    async def _judged(self, target: Target, tracked: _Tracked) -> tuple[Judgement, Sample | None]:
        probe, assignment = self._probe(), tracked.assignment
        if probe is None:
            raise AssertionError("nothing is tracked without a probe")
        try:
            async with asyncio.timeout(SAMPLE_SECONDS):
                sample = await probe.sample(target, _live(assignment))
        except TargetGone:
            if not assignment.one_shot:
                raise
            return Judgement(Verdict.INCONCLUSIVE, "", "the target is gone"), None
        except TimeoutError:
            text = f"no sample within {SAMPLE_SECONDS:g} s"
            return Judgement(Verdict.INCONCLUSIVE, "", text), None
        except SquallError as reason:
            return Judgement(Verdict.INCONCLUSIVE, "", str(reason)), None
        return probe.judge(assignment.fault, tracked.before, sample), sample

    def _proof(self, tracked: _Tracked, judgement: Judgement, sample: Sample | None) -> Proof:
        before = tracked.before.values if tracked.before else {}
        return Proof(
            verdict=judgement.verdict.value,
            asked=judgement.asked,
            measured=judgement.measured,
            way=sample.way.value if sample else "",
            before=dict(before),
            during=dict(sample.values) if sample else {},
            at=self._clock.now(),
        )

    def _reported(self, assignment: Assignment) -> Sample | None:
        """Take over what an agent before this one had sampled before the fault."""
        record = self._reports.record(assignment)
        if record is None or record.proof is None or not record.proof.before:
            return None
        way = Way(record.proof.way) if record.proof.way else Way.PASSIVE
        return Sample(way, record.proof.before)


def _live(assignment: Assignment) -> Live[Any]:
    return Live(assignment.source, assignment.fault)
