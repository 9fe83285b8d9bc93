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
from squall.node.sheets import RecordKey, Sheet
from squall.node.waiting import unless
from squall.telemetry import logger

GATHER_SECONDS = 0.5
"""A phase that changed is written at once when it was the last of its NodeFault; while others are
on their way it waits this long for them at most, and so does a verdict: forty targets make one
write."""

SEEN_SECONDS = 3.0
"""That a NodeFault was seen, while nothing else is to be said of it, is written after so long: most
act by then, and one write says both."""

PASSING_SECONDS = 5.0
"""A verdict that is about to be looked at again waits so long for one that lasts."""

PROOF_SECONDS, SHARE_SECONDS = 10.0, 5.0
"""Numbers that changed while no phase and no verdict did: of each NodeFault and of all of this
agent together they are written this often at most. Many nodes share one API."""

RETRY_SECONDS = 1.0


class Reports:
    """Keeps one record for each target of each NodeFault, and the API informed of them."""

    def __init__(self, cluster: Cluster, clock: Clock, namespace: str) -> None:
        self._cluster, self._clock, self._namespace = cluster, clock, namespace
        self._sheets: dict[str, Sheet] = {}
        self._woken = asyncio.Event()

    def follows(self, uid: str, generation: int) -> bool:
        """Is this what is reported on already?"""
        sheet = self._sheets.get(uid)
        return sheet is not None and sheet.held.generation == generation

    def follow(self, held: Held, status: Mapping[str, Any]) -> None:
        """Take a NodeFault in, or its new spec; at first sight, also what its status says."""
        sheet = self._sheets.get(held.uid)
        first = sheet is None
        if sheet is None:
            sheet = Sheet(held, NodeFaultStatus.model_validate(status))
            self._sheets[held.uid] = sheet
        sheet.take(held)
        if first and sheet.gathers():
            self._mark(sheet, SEEN_SECONDS)
        else:
            self._mark(sheet)

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
                    self._mark(sheet)

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

    def proved(self, assignment: Assignment, proof: Proof, *, passing: bool = False) -> None:
        """A probe has measured; `passing` while it is about to look again for a verdict."""
        record = self.record(assignment)
        if record is None:
            return
        last = record.proof
        if last and (last.verdict, last.after) == (proof.verdict, proof.after):
            within = max(PROOF_SECONDS, SHARE_SECONDS * len(self._sheets))
        else:
            within = PASSING_SECONDS if passing else GATHER_SECONDS
        self._change(assignment, within, proof=proof)

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

    def _change(
        self, assignment: Assignment, within: float | None = None, **changes: object
    ) -> None:
        if self.record(assignment) is not None:
            sheet, target = self._sheets[assignment.fault_uid], assignment.target
            self._set(sheet, (target.id, target.selector_key), changes, within)

    def _settle(self, fault_uid: str, target: NodeFaultTarget) -> None:
        """A target rests; when all of a Stop do, the Stop is observed."""
        sheet, key = self._sheets.get(fault_uid), (target.id, target.selector_key)
        if sheet and key in sheet.unsettled:
            sheet.unsettled.discard(key)
            if not sheet.unsettled:
                self._mark(sheet)

    def _set(
        self,
        sheet: Sheet,
        key: RecordKey,
        changes: dict[str, Any],
        within: float | None = None,
    ) -> None:
        record = sheet.records.get(key)
        if record is None:
            return
        changed = record.model_copy(update=changes)
        if changed != record:
            sheet.records[key] = changed
            self._mark(sheet, within)

    def _mark(self, sheet: Sheet, within: float | None = None) -> None:
        """Have a sheet written within so many seconds, together with what comes until then.

        None: somebody waits for it, so at once, but for others of it that are on their way.
        """
        if within is None:
            within = GATHER_SECONDS if sheet.gathers() else 0.0
            sheet.news = True
        due = self._clock.boottime() + within
        if sheet.due is None or due < sheet.due:
            sheet.due = due
            self._woken.set()

    async def _write(self, sheet: Sheet) -> None:
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
