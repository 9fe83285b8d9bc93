"""Write what a step decided, in the order that leaves a trace for whoever comes after a crash."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from squall.api.cluster import NODE_FAULT, Cluster, Conflict, NotFound, Object
from squall.api.metadata import EXPERIMENT_UID, RECORDS_FINALIZER
from squall.api.node_fault import NodeFaultSpec
from squall.api.status import ExperimentStatus
from squall.api.wire import Wire
from squall.clock import Clock
from squall.controller.cache import Cache
from squall.controller.recorder import Recorder
from squall.orchestration.experiments.announcements import gathered
from squall.orchestration.experiments.facts import Assigned, Decision
from squall.orchestration.experiments.records import MOST_DETAILED

STATUS_EVERY_SECONDS = 1.0
"""How often a status is written that nobody waits for."""


@dataclass
class Carrier:
    """Carries decisions out; every write is conditional on what the decision was made from."""

    cluster: Cluster
    clock: Clock
    namespace: str
    """Where NodeFaults live."""
    node_faults: Cache[Assigned]
    recorder: Recorder
    _written: dict[str, float] = field(default_factory=dict)
    """When the status of an experiment was last written, by its uid."""
    _decided: dict[str, float] = field(default_factory=dict)
    """When a large experiment was last decided on, by its uid."""

    def rests(self, obj: Object) -> float:
        """Say for how many seconds nothing should be decided on an experiment; 0 when it may.

        Deciding about thousands of targets takes long, and the word of every node asks for it.
        """
        records = (obj.get("status") or {}).get("experiment", {}).get("containerRecords") or ()
        if len(records) <= MOST_DETAILED:
            return 0.0
        uid, now = obj["metadata"]["uid"], self.clock.boottime()
        due = self._decided.get(uid, now - STATUS_EVERY_SECONDS) + STATUS_EVERY_SECONDS
        if due <= now:
            self._decided[uid] = now
        return max(0.0, due - now)

    def too_early(self, uid: str, decision: Decision) -> float:
        """Say for how many seconds a decision should rest; 0 when it should be carried out."""
        if decision.urgent or decision.status is None:
            return 0.0
        last = self._written.get(uid)
        return 0.0 if last is None else last + STATUS_EVERY_SECONDS - self.clock.boottime()

    def forget(self, uid: str) -> None:
        """Drop what is known of an experiment that is gone."""
        self._written.pop(uid, None)
        self._decided.pop(uid, None)

    async def carry_out(self, decision: Decision, experiments: Cache[Object], obj: Object) -> None:
        """Carry one decision out.

        Raises:
            ApiError: a write did not arrive, or somebody else wrote first; decide again.
        """
        if decision.hold:
            finalizers = [*(obj["metadata"].get("finalizers") or ()), RECORDS_FINALIZER]
            obj = await self._write(experiments, obj, {"metadata": {"finalizers": finalizers}})
        if decision.release:
            await self._release(decision, experiments, obj)
        else:
            stops = [(n, spec) for n, spec in decision.put if spec.desired_phase == "Stop"]
            starts = [(n, spec) for n, spec in decision.put if spec.desired_phase != "Stop"]
            stopping: list[Coroutine[Any, Any, object]] = [
                self._put(name, spec) for name, spec in stops
            ]
            if decision.status is not None:
                stopping.append(self._write_status(experiments, obj, decision.status))
            await _all(stopping)
            await _all(self._put(name, spec) for name, spec in starts)
            await self.remove(decision.remove)
        for said in gathered(decision.announcements):
            self.recorder.emit(obj, said)

    async def remove(self, names: Iterable[str]) -> None:
        """Delete NodeFaults that are still those that are known."""
        await _all([self._remove(name) for name in names])

    async def _release(self, decision: Decision, experiments: Cache[Object], obj: Object) -> None:
        """Let an object go; its last status is written only where somebody else still holds it."""
        left = [f for f in obj["metadata"].get("finalizers") or () if f != RECORDS_FINALIZER]
        if left and decision.status is not None:
            obj = await self._write_status(experiments, obj, decision.status)
        await self._write(experiments, obj, {"metadata": {"finalizers": left}})
        await self.remove(decision.remove)

    async def _remove(self, name: str) -> None:
        known = self.node_faults.objects.get((self.namespace, name))
        if known is None:
            return
        uid = known["metadata"]["uid"]
        with suppress(NotFound):
            await self.cluster.delete(NODE_FAULT, self.namespace, name, uid=uid)
        self.node_faults.vanish(known)

    async def _write_status(
        self, experiments: Cache[Object], obj: Object, status: ExperimentStatus
    ) -> Object:
        change = difference(obj.get("status") or {}, wire(status))
        written = await self._write(experiments, obj, {"status": change}, subresource="status")
        self._written[obj["metadata"]["uid"]] = self.clock.boottime()
        return written

    async def _write(
        self, experiments: Cache[Object], obj: Object, change: Object, *, subresource: str = ""
    ) -> Object:
        meta = obj["metadata"]
        version = {"resourceVersion": meta["resourceVersion"]}
        change = {**change, "metadata": {**change.get("metadata", {}), **version}}
        written = await self.cluster.patch(
            experiments.resource,
            meta.get("namespace"),
            meta["name"],
            change,
            subresource=subresource,
        )
        if _vanishing(written):
            experiments.vanish(written)
        else:
            experiments.put(written)
        return written

    async def _put(self, name: str, spec: NodeFaultSpec) -> None:
        known = self.node_faults.objects.get((self.namespace, name))
        if known is None:
            labels = {EXPERIMENT_UID: spec.experiment.uid}
            obj = {
                "apiVersion": NODE_FAULT.api_version,
                "kind": NODE_FAULT.kind,
                "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
                "spec": wire(spec),
            }
            self.node_faults.put(await self.cluster.create(NODE_FAULT, obj))
            return
        if known["spec"]["experiment"]["uid"] != spec.experiment.uid:
            raise Conflict(409, "Conflict", f"NodeFault {name} belongs to another experiment")
        change = {
            "metadata": {"resourceVersion": known["metadata"]["resourceVersion"]},
            "spec": difference(known["spec"], wire(spec)),
        }
        written = await self.cluster.patch(NODE_FAULT, self.namespace, name, change)
        self.node_faults.put(written)


async def _all(writes: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Write everything, so that what the API refuses does not hold up the rest."""
    for outcome in await asyncio.gather(*writes, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def wire(value: Wire) -> Object:
    """Write a value as JSON, leaving out what is not set."""
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Make the merge patch that turns one object into another (RFC 7386)."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if nested := difference(before, value):
                patch[name] = nested
        elif value != before:
            patch[name] = value
    return patch


def _vanishing(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"] and not obj["metadata"].get("finalizers")
