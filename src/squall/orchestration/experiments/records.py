"""Move one record of an experiment: a table of phases, its counts and its history."""

from dataclasses import dataclass
from datetime import datetime

from squall.api.node_fault import Proof
from squall.api.status import INJECTED as YES
from squall.api.status import INJECTED_WAIT as ENDING
from squall.api.status import NOT_INJECTED as NO
from squall.api.status import NOT_INJECTED_WAIT as STARTING
from squall.api.status import Record, RecordEvent
from squall.injection.contract import Verdict
from squall.orchestration.experiments import announcements as say
from squall.orchestration.experiments.evidence import Evidence, Report
from squall.orchestration.experiments.facts import Announcement

MAX_EVENTS = 100
"""Events kept for each record; upstream's default of MAX_EVENTS."""

EVENTS_IN_ALL = 3000
"""Events kept in one experiment; the more targets it has, the fewer for each."""

MOST_DETAILED = 1000
"""Targets above which records carry no events and no proof: the object must fit into etcd."""

# (shall it be hit?, phase) -> phase by evidence: none, injected, clean, settled
MOVES: dict[tuple[bool, str], tuple[str, str, str, str]] = {
    (True, NO): (STARTING, YES, STARTING, NO),
    (True, STARTING): (STARTING, YES, STARTING, NO),
    (True, YES): (YES, YES, STARTING, NO),
    (True, ENDING): (ENDING, YES, STARTING, NO),
    (False, NO): (NO, ENDING, NO, NO),
    (False, STARTING): (ENDING, ENDING, NO, NO),
    (False, YES): (ENDING, ENDING, NO, NO),
    (False, ENDING): (ENDING, ENDING, NO, NO),
}
_COLUMN = {Evidence.NONE: 0, Evidence.INJECTED: 1, Evidence.CLEAN: 2, Evidence.SETTLED: 3}

TOUCHED = frozenset({STARTING, YES, ENDING})
"""Phases in which a target may carry the fault; it is never forgotten in one of these."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A record after a move, and what there is to tell."""

    record: Record
    announcements: tuple[Announcement, ...] = ()


def fresh(selector_key: str, record_id: str) -> Record:
    """Begin the record of a target that was just chosen."""
    return Record(
        id=record_id, selector_key=selector_key, phase=NO, injected_count=0, recovered_count=0
    )


def kept_events(targets: int) -> int:
    """Say how many events each record of so many keeps: none where the object would not fit."""
    if targets > MOST_DETAILED:
        return 0
    return min(MAX_EVENTS, EVENTS_IN_ALL // max(1, targets))


def move(
    record: Record,
    *,
    hit: bool,
    report: Report,
    now: datetime,
    detailed: bool,
    most_events: int = MAX_EVENTS,
) -> Moved:
    """Take one record to where its evidence says it stands.

    Args:
        record: as last written.
        hit: shall the target have the fault?
        report: the word of its agent.
        now: for its history.
        detailed: keep events and proof in the record?
        most_events: how many of the latest events it keeps then.
    """
    phase = MOVES[hit, record.phase][_COLUMN[report.evidence]]
    injected = phase == YES and record.phase != YES
    # A target that was cut short before it was injected does not count as recovered.
    recovered = (
        phase == NO and record.phase in TOUCHED and (record.injected_count > record.recovered_count)
    )
    told: list[Announcement] = []
    events = list(record.events)
    if injected:
        events.append(_event("Succeeded", "Apply", now))
        told.append(say.applied(record.id))
    if recovered:
        events.append(_event("Succeeded", "Recover", now))
        told.append(say.recovered(record.id))
    if report.message and report.message != last_message(record):
        operation = "Apply" if hit else "Recover"
        events.append(_event("Failed", operation, now, report.message))
        if detailed:
            told.append(say.failed_on(record.id, f"{operation.lower()} chaos", report.message))
    proof = _proof(record.proof, report.proof, hit=hit)
    if detailed and proof and proof.verdict != (record.proof.verdict if record.proof else ""):
        told.append(say.proven(record.id, proof))
    record = record.model_copy(
        update={
            "phase": phase,
            "injected_count": record.injected_count + injected,
            "recovered_count": record.recovered_count + recovered,
            "events": events[-most_events:] if detailed else [],
            "proof": proof if detailed else None,
        }
    )
    return Moved(record, tuple(told))


def retired(record: Record) -> bool:
    """Did its agent take the fault back by itself? Then this run does not hit it again."""
    return (
        record.phase == NO
        and record.proof is not None
        and record.proof.verdict == Verdict.INTERRUPTED
    )


def _proof(known: Proof | None, new: Proof | None, *, hit: bool) -> Proof | None:
    if new is None:
        return known
    if known and not hit and new.verdict == Verdict.INTERRUPTED:
        # We asked for the end ourselves, so what was found before is the verdict.
        return known.model_copy(update={"after": new.after})
    return new


def last_message(record: Record) -> str:
    """Say what went wrong last, if that was the last thing to happen."""
    return (record.events[-1].message or "") if record.events else ""


def _event(kind: str, operation: str, now: datetime, message: str | None = None) -> RecordEvent:
    return RecordEvent.model_validate(
        {"type": kind, "operation": operation, "message": message, "timestamp": now}
    )
