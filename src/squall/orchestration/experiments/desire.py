"""Shall the faults of an experiment act now, and what decides it?"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from squall.api.status import INJECTED
from squall.orchestration.experiments import announcements as say
from squall.orchestration.experiments.facts import Announcement, Facts, Seen

UNREACHABLE_AFTER = timedelta(seconds=10)
"""How long after a node must have healed itself an object still waits for its word."""


class Cause(StrEnum):
    """Why an experiment runs or stops."""

    STARTED = "Started"
    PAUSED = "Paused"
    TIME_UP = "TimeUp"
    DELETED = "Deleted"
    INTERRUPTED = "Interrupted"


_ANNOUNCED = {
    Cause.STARTED: say.STARTED,
    Cause.PAUSED: say.PAUSED,
    Cause.TIME_UP: say.TIME_UP,
    Cause.DELETED: say.DELETED,
}


@dataclass(frozen=True, slots=True)
class Desire:
    """What an experiment should do now."""

    cause: Cause
    ends: datetime | None
    """When its duration is over; None for one-shot actions and without a duration."""
    interrupted: str | None = None
    """What `status.experiment.interrupted` should say."""

    @property
    def runs(self) -> bool:
        """Shall the faults act?"""
        return self.cause is Cause.STARTED

    @property
    def phase(self) -> Literal["Run", "Stop"]:
        """Give the word on the wire."""
        return "Run" if self.runs else "Stop"

    def announcement(self) -> Announcement:
        """Say it in an event."""
        return _ANNOUNCED.get(self.cause) or say.halted(self.interrupted or "halted")


def desire(facts: Facts, seen: Seen, now: datetime) -> Desire:
    """Decide whether an experiment should run.

    Its duration counts from its creation, and pausing does not extend it. A one-shot action is
    neither timed nor paused. What a halt has stopped stays stopped after the halt, until somebody
    pauses and resumes it; an experiment that would not run anyway is not marked by a halt.

    Source: chaos-mesh controllers/common/desiredphase.
    """
    one_shot = seen.spec is not None and facts.kind.one_shot(seen.spec)
    duration = seen.spec.duration if seen.spec and not one_shot else None
    ends = seen.created + duration if duration else None
    before = seen.status.experiment.interrupted
    if seen.deleted:
        return Desire(Cause.DELETED, ends, before)
    if one_shot and _struck(seen):
        return Desire(Cause.STARTED, ends, before)
    if ends and ends <= now:
        return Desire(Cause.TIME_UP, ends, before)
    if seen.paused and not one_shot:
        return Desire(Cause.PAUSED, ends, None)
    interrupted = before if facts.halt is None else f"halted: {facts.halt or 'no reason given'}"
    if interrupted:
        return Desire(Cause.INTERRUPTED, ends, before or interrupted)
    return Desire(Cause.STARTED, ends)


def let_go_at(facts: Facts, seen: Seen, ends: datetime | None) -> datetime | None:
    """Say when a deleted object may go although a node has not answered.

    By then the node has healed itself: after a lease of silence, or at the deadline with `hold`.
    """
    if seen.deleted is None:
        return None
    healed = seen.deleted + timedelta(seconds=facts.lease_seconds)
    if seen.spec and seen.spec.when_cut_off == "hold" and ends:
        healed = max(seen.deleted, ends)
    return healed + UNREACHABLE_AFTER


def _struck(seen: Seen) -> bool:
    records = seen.status.experiment.container_records
    return bool(records) and all(record.phase == INJECTED for record in records or ())
