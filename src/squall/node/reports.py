"""How the targets of this node stand, and the writing of it into NodeFault.status."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from squall.api.cluster import NODE_FAULT, ApiError, Cluster, NotFound
from squall.api.node_fault import NodeFaultRecord, NodeFaultStatus, NodeFaultTarget, Proof
from squall.clock import Clock
from squall.injection.contract import Verdict
from squall.node.assignments import Assignment
from squall.node.leases import Held
from squall.node.waiting import unless
from squall.telemetry import logger

GATHER_SECONDS = 0.5
"""A phase that changed is written at once when it was the last of its NodeFault; while others are
on their way it waits this long for them at most, and so does a verdict: forty targets make one
write."""

PROOF_SECONDS = 10.0
"""Numbers that changed while no phase and no verdict did are written this often at most."""

RETRY_SECONDS = 1.0

RecordKey = tuple[str, str]
"""(record id, selector key)."""


class _Sheet:
    """The records of one NodeFault."""

    def __init__(self, held: Held, status: NodeFaultStatus) -> None:
        self.held, self.written = held, status
        self.records = {(record.id, record.selector_key): record for record in status.targets}
        self.leaving: set[RecordKey] = set()
        """Records of targets that the NodeFault lists no more, until they are restored."""
        self.unsettled: set[RecordKey] = set()
        """Records of a Stop whose targets may be at work: until they rest, it is not observed."""
        self.observed = status.observed_generation
        self.due: float | None = None
        self.news = False
        """Is there more to write than numbers?"""
        self.writing = asyncio.Lock()

    def status(self) -> NodeFaultStatus:
        if not self.unsettled:
            self.observed = self.held.generation
        return NodeFaultStatus(
            observed_generation=self.observed, targets=list(self.records.values())
        )

    def gathers(self) -> bool:
        """Is a record of it still on its way, with nothing to say about it yet?"""
        wanted = "Injected" if self.held.spec.desired_phase == "Run" else "Not Injected"
        return any(
            record.phase != wanted and not record.final and not record.message
            for record in self.records.values()
        )


class Reports:
    """Keeps one record for each target of each NodeFault, and the API informed of them."""

    def __init__(self, cluster: Cluster, clock: Clock, namespace: str) -> None:
        self._cluster, self._clock, self._namespace = cluster, clock, namespace
        self._sheets: dict[str, _Sheet] = {}
        self._woken = asyncio.Event()

    def follows(self, uid: str, generation: int) -> bool:
        """Is this what is reported on already?"""
        sheet = self._sheets.get(uid)
        return sheet is not None and sheet.held.generation == generation

    def follow(self, held: Held, status: Mapping[str, Any]) -> None:
        """Take a NodeFault in, or its new spec; at first sight, also what its status says."""
        sheet = self._sheets.get(held.uid)
        if sheet is None:
            sheet = _Sheet(held, NodeFaultStatus.model_validate(status))
            self._sheets[held.uid] = sheet
        began = held.generation != sheet.held.generation and held.spec.desired_phase == "Run"
        stops = held.spec.desired_phase == "Stop" and not held.spec.one_shot
        sheet.held = held
        listed = {
            (target.id, target.selector_key): _carried(
                sheet.records.get((target.id, target.selector_key)), target, afresh=began
            )
            for target in held.spec.targets
        }
        sheet.leaving = {key for key in sheet.records if key not in listed}
        sheet.records = {key: sheet.records[key] for key in sheet.leaving} | listed
        sheet.unsettled = set(listed) if stops and sheet.observed != held.generation else set()
        self._mark(sheet, urgent=True)

    def leaving(self) -> set[tuple[str, str]]:
        """List (kind, record id) of targets that were taken off their NodeFault."""
        return {
            (sheet.held.spec.experiment.kind, id_)
            for sheet in self._sheets.values()
            for id_, _ in sheet.leaving
        }

    def left(self, kind: str, target: str, sources: Collection[str]) -> None:
        """Drop the records of faults that were taken off, now that a target feels others only.

        Until then they are shown: a record that is absent counts as restored.
        """
        for sheet in self._sheets.values():
            experiment = sheet.held.spec.experiment
            for key in [key for key in sheet.leaving if key[0] == target]:
                if experiment.kind == kind and f"{experiment.uid}/{key[1]}" not in sources:
                    sheet.leaving.discard(key)
                    del sheet.records[key]
                    self._mark(sheet, urgent=True)

    def drop(self, uid: str) -> None:
        """Forget a NodeFault that is gone."""
        self._sheets.pop(uid, None)

    def record(self, assignment: Assignment) -> NodeFaultRecord | None:
        """Read how a fault stands; None when its record is gone or of another incarnation."""
        sheet = self._sheets.get(assignment.fault_uid)
        target = assignment.target
        record = sheet and sheet.records.get((target.id, target.selector_key))
        return record if record and record.incarnation == target.incarnation else None

    def shows_injected(self, assignment: Assignment) -> bool:
        """Does the record say that the fault acts?"""
        record = self.record(assignment)
        return record is not None and record.phase == "Injected"

    def injected(self, assignment: Assignment) -> None:
        """The fault acts."""
        record = self.record(assignment)
        if record and (record.phase != "Injected" or record.message or record.final):
            at = record.injected_at if record.phase == "Injected" else self._clock.now()
            self._change(
                assignment, phase="Injected", message="", final=False, injected_at=at,
                recovered_at=None,
            )  # fmt: skip

    def struck(self, assignment: Assignment) -> None:
        """The fault was done, once, and is not undone."""
        self._change(
            assignment, phase="Injected", message="", final=True, injected_at=self._clock.now()
        )

    def ended(self, assignment: Assignment, reason: str) -> None:
        """The target is as it was; `reason` when the agent did so by itself."""
        record = self.record(assignment)
        if record is None:
            return
        changes: dict[str, Any] = {"phase": "Not Injected", "final": bool(reason)}
        if reason or record.phase == "Injected":
            changes["message"] = reason
        if record.phase == "Injected":
            changes["recovered_at"] = self._clock.now()
        if reason:
            proof = record.proof or Proof(verdict="")
            update = {"verdict": Verdict.INTERRUPTED.value, "at": proof.at or self._clock.now()}
            changes["proof"] = proof.model_copy(update=update)
        self._change(assignment, **changes)
        self._settle(assignment.fault_uid, assignment.target)

    def failed(self, assignment: Assignment, message: str, *, final: bool = False) -> None:
        """The target does not stand where it should; `final` when that is the last word."""
        self._change(assignment, message=message, final=final)

    def gone(self, assignment: Assignment, message: str) -> None:
        """The target no longer exists; nothing is left to undo."""
        self._change(assignment, phase="Not Injected", message=message, final=True)
        self._settle(assignment.fault_uid, assignment.target)

    def refused(self, fault_uid: str, target: NodeFaultTarget, message: str) -> None:
        """This agent will never carry the record out."""
        if sheet := self._sheets.get(fault_uid):
            self._set(sheet, (target.id, target.selector_key), {"message": message, "final": True})
        self._settle(fault_uid, target)

    def proved(self, assignment: Assignment, proof: Proof) -> None:
        """A probe has measured."""
        record = self.record(assignment)
        last = record and record.proof
        turned = not last or (last.verdict, last.after) != (proof.verdict, proof.after)
        self._change(assignment, urgent=turned, proof=proof)

    async def run(self) -> None:
        """Write statuses when they are due, for ever; one that is not answered holds up no other.

        Those that somebody waits for go first: many faults on one node have much to measure.
        """
        async with asyncio.TaskGroup() as writing:
            while True:
                self._woken.clear()
                now = self._clock.boottime()
                waiting = [s for s in self._sheets.values() if not s.writing.locked()]
                dues = [sheet.due for sheet in waiting if sheet.due is not None]
                if not dues:
                    await self._woken.wait()
                elif min(dues) > now:
                    await unless(self._woken, self._clock.sleep(min(dues) - now))
                else:
                    due = [s for s in waiting if s.due is not None and s.due <= now]
                    for sheet in sorted(due, key=lambda sheet: not sheet.news):
                        writing.create_task(self._write(sheet))
                    await asyncio.sleep(0)  # they begin

    async def flush(self) -> None:
        """Write now what is not written yet."""
        await asyncio.gather(*(self._write(sheet) for sheet in self._sheets.values()))

    def _change(self, assignment: Assignment, *, urgent: bool = True, **changes: object) -> None:
        if self.record(assignment) is not None:
            sheet, target = self._sheets[assignment.fault_uid], assignment.target
            self._set(sheet, (target.id, target.selector_key), changes, urgent=urgent)

    def _settle(self, fault_uid: str, target: NodeFaultTarget) -> None:
        """A target rests; when all of a Stop do, the Stop is observed."""
        sheet, key = self._sheets.get(fault_uid), (target.id, target.selector_key)
        if sheet and key in sheet.unsettled:
            sheet.unsettled.discard(key)
            if not sheet.unsettled:
                self._mark(sheet, urgent=True)

    def _set(
        self, sheet: _Sheet, key: RecordKey, changes: dict[str, Any], *, urgent: bool = True
    ) -> None:
        record = sheet.records.get(key)
        if record is None:
            return
        changed = record.model_copy(update=changes)
        if changed != record:
            sheet.records[key] = changed
            self._mark(sheet, urgent=urgent, waited_for=set(changes) != {"proof"})

    def _mark(self, sheet: _Sheet, *, urgent: bool, waited_for: bool = True) -> None:
        """Have a sheet written; what nobody waits for may come later, together with others."""
        wait = PROOF_SECONDS
        if urgent:
            wait = GATHER_SECONDS if not waited_for or sheet.gathers() else 0.0
            sheet.news = sheet.news or waited_for
        due = self._clock.boottime() + wait
        if sheet.due is None or due < sheet.due:
            sheet.due = due
            self._woken.set()

    async def _write(self, sheet: _Sheet) -> None:
        async with sheet.writing:
            if sheet.due is None:
                return
            sheet.due, sheet.news, status = None, False, sheet.status()
            if status == sheet.written:
                return
            wire = status.model_dump(mode="json", by_alias=True)
            name = sheet.held.name
            try:
                await self._cluster.patch(
                    NODE_FAULT, self._namespace, name, {"status": wire}, subresource="status"
                )
                sheet.written = status
            except NotFound:
                return
            except ApiError as refused:
                logger(__name__).warning("status of %s not written: %s", name, refused)
                sheet.due = self._clock.boottime() + RETRY_SECONDS
        self._woken.set()  # there may be more to write by now


def _carried(
    old: NodeFaultRecord | None, target: NodeFaultTarget, *, afresh: bool
) -> NodeFaultRecord:
    if old is None or old.incarnation != target.incarnation:
        return NodeFaultRecord(
            id=target.id,
            selector_key=target.selector_key,
            phase="Not Injected",
            incarnation=target.incarnation,
        )
    if afresh and old.phase == "Not Injected":
        return old.model_copy(update={"final": False, "message": "", "proof": None})
    return old
