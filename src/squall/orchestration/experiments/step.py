"""Decide the next move of one experiment: no clock, no I/O, no waiting."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from squall.api.metadata import RECORDS_FINALIZER
from squall.api.node_fault import NodeFaultSpec
from squall.api.status import NOT_INJECTED, Experiment, ExperimentStatus, Record
from squall.errors import InvalidFault
from squall.orchestration.experiments import announcements as say
from squall.orchestration.experiments.assignments import Assignments, node_fault_name
from squall.orchestration.experiments.choosing import Chosen, choose, is_live, scope_of
from squall.orchestration.experiments.conditions import conditions
from squall.orchestration.experiments.desire import Desire, desire, let_go_at
from squall.orchestration.experiments.endings import emptied, orphaned, taken_back
from squall.orchestration.experiments.facts import Announcement, Decision, Facts, Key, Seen
from squall.orchestration.experiments.records import MOST_DETAILED, TOUCHED, kept_events, move
from squall.orchestration.experiments.selection import pool_of
from squall.orchestration.experiments.standing import Standing, ending, going, silent_until


def step(facts: Facts, now: datetime) -> Decision:
    """Say what one experiment needs next.

    Targets are chosen, every record is driven to where the experiment should be, and a target
    that may have been touched is taken back before the object may go - unless its node stays
    silent for longer than it takes to heal itself: then the object goes, and says so.

    Args:
        facts: what is there, as last read.
        now: the moment to decide for, in UTC.

    Source: chaos-mesh controllers/common/{finalizers,desiredphase,condition,records}.
    """
    seen = facts.experiment
    if seen is None:
        return orphaned(facts)
    held = RECORDS_FINALIZER in seen.finalizers
    if seen.deleted and not held:
        return orphaned(facts)
    decided = _Step(facts, seen, now).decide()
    if held:
        return decided
    return replace(decided, hold=True, announcements=(say.FINALIZER_INITED, *decided.announcements))


@dataclass(frozen=True, slots=True)
class _Orders:
    """NodeFaults to put, by node, and to remove, by name."""

    put: dict[str, NodeFaultSpec]
    remove: tuple[str, ...] = ()


class _Step:
    """One step: what is wanted, who is hit, where they are, how they stand, what to order."""

    def __init__(self, facts: Facts, seen: Seen, now: datetime) -> None:
        self.facts, self.seen, self.now = facts, seen, now
        self.wanted: Desire = desire(facts, seen, now)
        self.one_shot = seen.spec is not None and facts.kind.one_shot(seen.spec)
        self.lets_go_at = let_go_at(facts, seen, self.wanted.ends)
        self.told: list[Announcement] = []

    def decide(self) -> Decision:
        """Put it all together."""
        chosen, plan = self._chosen()
        self.told += [say.passed_over(one.id, one.reason) for one in chosen.passed_over]
        standing = self._standing(chosen, plan)
        orders = self._orders(chosen, plan, standing)
        records = self._moved(chosen, standing)
        release = self._releases(records, orders)
        status = self._status(records, chosen, standing)
        starved = self.wanted.runs and records is None
        return Decision(
            status=None if status == self.seen.status else status,
            urgent=release or bool(orders.put) or _matters(self.seen.status, status),
            put=tuple((self._name(node), spec) for node, spec in orders.put.items()),
            remove=orders.remove,
            release=release,
            announcements=tuple(self.told),
            wake_at=None if release else self._wake_at(),
            retry=starved and self.seen.spec is not None,
            follows_pods=starved or (self.wanted.runs and is_live(self.facts, self.seen)),
        )

    def _chosen(self) -> tuple[Chosen, Assignments]:
        """Choose targets, and see whether the room can express what they get."""
        chosen = choose(self.facts, self.seen, self.wanted)
        plan = self._plan(chosen)
        try:
            _ = plan.given
        except (InvalidFault, ValueError) as refused:
            known = self.seen.status.experiment.container_records
            chosen = Chosen(None if known is None else tuple(known), problem=str(refused))
            plan = replace(self._plan(chosen), refused=True)
        return chosen, plan

    def _plan(self, chosen: Chosen) -> Assignments:
        return Assignments(
            kind=self.facts.kind,
            seen=self.seen,
            assigned=self.facts.assigned,
            records=chosen.records or (),
            pods=self.facts.inventory.by_id,
            services=self.facts.inventory.services,
            ends=self.wanted.ends,
            api_node=self._api_node(),
            totals=self._totals,
        )

    def _api_node(self) -> str:
        spec = self.seen.spec
        return self.facts.api_node if spec is not None and self.facts.kind.by_api(spec) else ""

    def _totals(self) -> dict[str, int]:
        spec, facts = self.seen.spec, self.facts
        if spec is None:
            return {}
        scope = scope_of(
            facts.kind, spec, namespace=self.seen.namespace, seed="", policy=facts.policy
        )
        return {key: pool_of(scope, key, facts.inventory).total for key in scope.selectors}

    def _standing(self, chosen: Chosen, plan: Assignments) -> Standing:
        if self.wanted.runs:
            live = is_live(self.facts, self.seen)
            return going(plan, chosen.released, self.now, live=live, one_shot=self.one_shot)
        return ending(plan, one_shot=self.one_shot)

    def _orders(self, chosen: Chosen, plan: Assignments, standing: Standing) -> _Orders:
        assigned = self.facts.assigned
        if self.wanted.runs:
            live = is_live(self.facts, self.seen)
            put = {} if plan.refused else plan.running(standing.where.values(), anew=live)
            done = [a for a in assigned if emptied(a) and a.spec.node_name not in put]
            return _Orders(put, tuple(one.name for one in done))
        if self.one_shot or self._lets_go():
            return _Orders({}, tuple(one.name for one in assigned))
        lost = () if plan.refused else standing.lost
        remove = tuple(one.name for one in assigned if taken_back(one) and not lost)
        put = plan.stopping(lost)
        return _Orders({n: s for n, s in put.items() if self._name(n) not in remove}, remove)

    def _moved(self, chosen: Chosen, standing: Standing) -> tuple[Record, ...] | None:
        if chosen.records is None:
            return None
        detailed = len(chosen.records) <= MOST_DETAILED
        kept: list[Record] = []
        for record in chosen.records:
            key = (record.selector_key, record.id)
            released = key in chosen.released
            moved = move(
                standing.restarted(record),
                hit=self.wanted.runs and not released,
                report=standing.reports[key],
                now=self.now,
                detailed=detailed,
                most_events=kept_events(len(chosen.records)),
            )
            self.told += moved.announcements
            if not released or moved.record.phase != NOT_INJECTED:
                kept.append(moved.record)
        return tuple(kept)

    def _lets_go(self) -> bool:
        """Is it time to free a deleted object, whatever its nodes say?"""
        if self.seen.deleted is None:
            return False
        late = self.lets_go_at is not None and self.lets_go_at <= self.now
        return self.seen.forced or late

    def _releases(self, records: tuple[Record, ...] | None, orders: _Orders) -> bool:
        if self.seen.deleted is None:
            return False
        touched = [record for record in records or () if record.phase in TOUCHED]
        left = {one.name for one in self.facts.assigned} - set(orders.remove)
        if not touched and not left and not orders.put:
            return True
        if not self._lets_go():
            return False
        self.told.append(say.let_go(_ids(touched), forced=self.seen.forced))
        return True

    def _status(
        self, records: tuple[Record, ...] | None, chosen: Chosen, standing: Standing
    ) -> ExperimentStatus:
        before = self.seen.status
        if self.wanted.phase != before.experiment.desired_phase:
            self.told.insert(0, self.wanted.announcement())
        reasons = self._reasons(records, chosen, standing)
        after = conditions(records, paused=self.seen.paused, reasons=reasons)
        known = {condition.type: condition.reason for condition in before.conditions}
        if chosen.problem and chosen.records is None and known.get("Selected") != after[0].reason:
            self.told.append(say.failed("select targets", chosen.problem))
        return ExperimentStatus(
            conditions=after,
            experiment=Experiment(
                desired_phase=self.wanted.phase,
                container_records=None if records is None else list(records),
                interrupted=self.wanted.interrupted,
            ),
        )

    def _reasons(
        self, records: tuple[Record, ...] | None, chosen: Chosen, standing: Standing
    ) -> dict[str, str]:
        stopped = self.wanted.interrupted or ""
        said = "; ".join(
            f"{key[1]}: {r.message}" for key, r in standing.reports.items() if r.message
        )
        reasons = {"Selected": chosen.problem or stopped, "AllInjected": stopped or said}
        touched = [record for record in records or () if record.phase in TOUCHED]
        if self._lets_go() and touched:
            reasons["AllRecovered"] = f"Unreachable: {_ids(touched)}"
        elif not self.wanted.runs:
            reasons["AllRecovered"] = said
        return reasons

    def _wake_at(self) -> datetime | None:
        moments = [self.lets_go_at, silent_until(self.facts.assigned)]
        if self.wanted.runs:
            moments.append(self.wanted.ends)
        return min((at for at in moments if at and at > self.now), default=None)

    def _name(self, node: str) -> str:
        return node_fault_name(self.seen.kind, self.seen.uid, node)


def _matters(before: ExperimentStatus, after: ExperimentStatus) -> bool:
    """Does somebody wait for this change? Evidence and single phases may come a second later."""
    return (
        before.experiment.desired_phase != after.experiment.desired_phase
        or before.experiment.interrupted != after.experiment.interrupted
        or [(c.type, c.status) for c in before.conditions]
        != [(c.type, c.status) for c in after.conditions]
        or _keys(before) != _keys(after)
    )


def _keys(status: ExperimentStatus) -> list[Key]:
    return [(r.selector_key, r.id) for r in status.experiment.container_records or ()]


def _ids(records: Iterable[Record]) -> str:
    return ", ".join(dict.fromkeys(record.id for record in records))
