"""Objects of the API as facts for a step."""

from datetime import datetime

from pydantic import ValidationError

from squall.api.cluster import Object
from squall.api.metadata import FORCE_CLEAN, FORCED, PAUSE
from squall.api.node_fault import NodeFaultSpec, NodeFaultStatus
from squall.api.status import PHASES, ExperimentStatus
from squall.injection.kind import FaultKind
from squall.orchestration.experiments.facts import EMPTY, Assigned, Seen
from squall.telemetry import logger


def read_experiment(kind: FaultKind, obj: Object) -> Seen:
    """Read an experiment; one whose spec makes no sense is read as far as it can be."""
    meta = obj["metadata"]
    annotations = meta.get("annotations") or {}
    spec, flaw = None, ""
    try:
        spec = kind.spec.model_validate(obj.get("spec") or {})
    except ValidationError as wrong:
        flaw = "; ".join(
            f"spec.{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in wrong.errors()
        )
    deleted = meta.get("deletionTimestamp")
    return Seen(
        kind=kind.resource.kind,
        namespace=meta.get("namespace") or "",
        name=meta["name"],
        uid=meta["uid"],
        created=moment(meta["creationTimestamp"]),
        deleted=moment(deleted) if deleted else None,
        finalizers=tuple(meta.get("finalizers") or ()),
        paused=annotations.get(PAUSE) == "true",
        forced=annotations.get(FORCE_CLEAN) == FORCED,
        spec=spec,
        flaw=flaw,
        status=_status(obj),
    )


def read_assigned(obj: Object) -> Assigned:
    """Read a NodeFault."""
    meta = obj["metadata"]
    return Assigned(
        name=meta["name"],
        generation=meta.get("generation") or 1,
        created=moment(meta["creationTimestamp"]),
        spec=NodeFaultSpec.model_validate(obj["spec"]),
        status=NodeFaultStatus.model_validate(obj.get("status") or {}),
    )


def moment(text: str) -> datetime:
    """Read a time of the API (RFC 3339)."""
    return datetime.fromisoformat(text)


def _status(obj: Object) -> ExperimentStatus:
    """Read a status; one that we cannot have written counts as none, so that nothing is stuck.

    Targets are then chosen again, the same ones by the same seed, or let go with the NodeFaults.
    """
    sent = obj.get("status") or {}
    if not sent:
        return EMPTY
    try:
        status = ExperimentStatus.model_validate({"experiment": {}, **sent})
    except ValidationError as wrong:
        why = str(wrong)
    else:
        records = status.experiment.container_records or ()
        odd = next((record for record in records if record.phase not in PHASES), None)
        if odd is None:
            return status
        why = f"{odd.id} is {odd.phase!r}, which is no phase"
    meta = obj["metadata"]
    name = f"{obj.get('kind')} {meta.get('namespace')}/{meta['name']}"
    logger(__name__).warning("status of %s is not ours, so it starts anew: %s", name, why)
    return EMPTY
