"""Where every target is now, and what is known of it there."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from squall.api.status import INJECTED, NOT_INJECTED_WAIT, Record
from squall.orchestration.experiments.assignments import Assignments, Place, places
from squall.orchestration.experiments.evidence import Evidence, Report, reports, unassigned
from squall.orchestration.experiments.facts import Assigned, Key
from squall.orchestration.experiments.records import TOUCHED, last_message, retired

AGENT_ANSWERS_WITHIN = timedelta(seconds=10)
"""An agent that has said nothing of a NodeFault for so long is reported as absent."""

_NOTHING = Report(Evidence.NONE)
_DONE = Report(Evidence.INJECTED)
_FREE = Report(Evidence.SETTLED)


@dataclass(frozen=True, slots=True)
class Standing:
    """How all targets of an experiment stand."""

    reports: Mapping[Key, Report]
    """What is known of each; has every record."""
    where: Mapping[Key, Place] = field(default_factory=dict)
    """Where the targets are that shall be hit."""
    reborn: frozenset[Key] = frozenset()
    """Targets whose pod or container was replaced: what was injected is gone with it."""
    lost: tuple[Record, ...] = ()
    """Touched targets that no NodeFault lists."""

    def restarted(self, record: Record) -> Record:
        """Start a record over where its target is a new one."""
        if (record.selector_key, record.id) not in self.reborn or record.phase not in TOUCHED:
            return record
        return record.model_copy(
            update={
                "phase": NOT_INJECTED_WAIT,
                "recovered_count": max(record.recovered_count, record.injected_count),
            }
        )


def going(
    plan: Assignments, released: Collection[Key], now: datetime, *, live: bool, one_shot: bool
) -> Standing:
    """Find every target of an experiment that runs.

    Args:
        plan: its records and what there is for them.
        released: targets that a live selection gives up.
        now: to notice an agent that is silent.
        live: follow targets that were replaced?
        one_shot: can the action not be undone?
    """
    known, said = places(plan.assigned), reports(plan.assigned)
    stopped = {a.spec.node_name for a in plan.assigned if a.spec.desired_phase == "Stop"}
    silent = {a.spec.node_name for a in plan.assigned if _silent(a, now)}
    where: dict[Key, Place] = {}
    found: dict[Key, Report] = {}
    reborn: set[Key] = set()
    for record in plan.records:
        key = (record.selector_key, record.id)
        before = known.get(key)
        if key in released:
            found[key] = _leaving(said[key]) if before else unassigned(key, plan.assigned)
        elif plan.gives_nothing(record.selector_key):
            found[key] = _DONE
        elif one_shot and record.phase == INJECTED:
            found[key] = _struck(said.get(key))
            where |= {key: before} if before else {}
        elif retired(record) and (live or before is None):
            found[key] = Report(Evidence.SETTLED, message=last_message(record))
        else:
            frozen = before is not None and not live and before.node not in stopped
            place = before if frozen else plan.place(record, before) or (live and before)
            if not place:
                found[key] = Report(Evidence.SETTLED, message="nothing of it runs any more")
                continue
            where[key] = place
            if place == before:
                found[key] = _heard(said[key], silent)
            else:
                found[key] = _NOTHING
                reborn |= {key} if before else set()
    return Standing(found, where, frozenset(reborn))


def ending(plan: Assignments, *, one_shot: bool) -> Standing:
    """See how far every target of an experiment that stops has been taken back."""
    said = reports(plan.assigned)
    found: dict[Key, Report] = {}
    lost: list[Record] = []
    for record in plan.records:
        key = (record.selector_key, record.id)
        if one_shot or (key not in said and record.phase not in TOUCHED):
            found[key] = _FREE
        elif key in said:
            found[key] = said[key]
        elif plan.gives_nothing(record.selector_key) or not plan.place(record, None):
            found[key] = _FREE
        else:
            found[key] = _NOTHING
            lost.append(record)
    return Standing(found, lost=tuple(lost))


def silent_until(assigned: Sequence[Assigned]) -> datetime | None:
    """Say when the next agent that has not spoken yet should be reported."""
    waiting = (a.created + AGENT_ANSWERS_WITHIN for a in assigned if not _spoke(a))
    return min(waiting, default=None)


def _leaving(said: Report) -> Report:
    """Trust no "not yet" of an agent that is still told to inject."""
    return replace(said, evidence=Evidence.NONE) if said.evidence is Evidence.CLEAN else said


def _heard(report: Report, silent: Collection[str]) -> Report:
    if report.node not in silent:
        return report
    text = f"no agent answers on node {report.node}; is one running there?"
    return Report(Evidence.NONE, report.node, text)


def _struck(said: Report | None) -> Report:
    """Once struck, always struck: the target may be gone, which is what was wanted."""
    return replace(said, evidence=Evidence.INJECTED, message="") if said else _DONE


def _spoke(one: Assigned) -> bool:
    return one.status.observed_generation > 0 or bool(one.status.targets)


def _silent(one: Assigned, now: datetime) -> bool:
    return not _spoke(one) and one.created + AGENT_ANSWERS_WITHIN <= now
