"""Write what a step decided, in the order that leaves a trace for whoever comes after a crash."""

import asyncio
from collections.abc import Mapping
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
from squall.orchestration.experiments.facts import Assigned, Decision

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

    def too_early(self, uid: str, decision: Decision) -> float:
        """Say for how many seconds a decision should rest; 0 when it should be carried out."""
        if decision.urgent or decision.status is None:
            return 0.0
        last = self._written.get(uid)
        return 0.0 if last is None else last + STATUS_EVERY_SECONDS - self.clock.boottime()

    def forget(self, uid: str) -> None:
        """Drop what is known of an experiment that is gone."""
        self._written.pop(uid, None)

    async def carry_out(self, decision: Decision, experiments: Cache[Object], obj: Object) -> None:
        """Carry one decision out.

        Raises:
            ApiError: a write did not arrive, or somebody else wrote first; decide again.
        """
        if decision.hold:
            finalizers = [*(obj["metadata"].get("finalizers") or ()), RECORDS_FINALIZER]
            obj = await self._write(experiments, obj, {"metadata": {"finalizers": finalizers}})
        if decision.status is not None:
            obj = await self._write_status(experiments, obj, decision.status)
        await self._order(decision)
        if decision.release:
            left = [f for f in obj["metadata"].get("finalizers") or () if f != RECORDS_FINALIZER]
            await self._write(experiments, obj, {"metadata": {"finalizers": left}})
        for said in decision.announcements:
            self.recorder.emit(obj, said)

    async def remove(self, name: str) -> None:
        """Delete a NodeFault, if it is still the one that is known."""
        known = self.node_faults.objects.get((self.namespace, name))
        if known is None:
            return
        uid = known["metadata"]["uid"]
        try:
            await self.cluster.delete(NODE_FAULT, self.namespace, name, uid=uid)
        except NotFound:
            return

    async def _order(self, decision: Decision) -> None:
        """Write every NodeFault, so that one the API refuses does not hold up the others."""
        writes = [self._put(name, spec) for name, spec in decision.put]
        writes += [self.remove(name) for name in decision.remove]
        for outcome in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

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
        if not _vanishing(written):
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
