"""Kubernetes' own kinds, as far as Squall and `kubectl` need them on one host.

Their schemas name what is read here, so that a wrong type is refused; all else is kept as it is.
"""

from base64 import b64encode
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

from squall.api.cluster import (
    CONFIG_MAP,
    EVENT,
    LEASE,
    NAMESPACE,
    NODE,
    POD,
    SECRET,
    SERVICE,
    Object,
    Resource,
)
from squall.api.schema_check import problems
from squall.api.served import AGE, Cause, Column, Schema, ServedKind

Rule = Callable[[Object, Object | None], list[Cause]]
"""(new object, old or None) -> every reason to refuse what has the right shape."""

_KEEP = "x-kubernetes-preserve-unknown-fields"
_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_NUMBER: Schema = {"type": "integer"}
_FLAG: Schema = {"type": "boolean"}
_TEXT_MAP: Schema = {"type": "object", "additionalProperties": _TEXT}


def _open(_required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """Describe an object of which only some fields are known."""
    schema: Schema = {"type": "object", _KEEP: True, "properties": properties}
    return schema | {"required": list(_required)} if _required else schema


def _list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_CONTAINER = _open(
    ("name",),
    name=_TEXT,
    image=_TEXT,
    command=_TEXTS,
    args=_TEXTS,
    env=_list_of(_open(("name",), name=_TEXT, value=_TEXT)),
)
_CONDITIONS = _list_of(_open(("type", "status"), type=_TEXT, status=_TEXT, message=_TEXT))
_CONTAINER_STATUS = _open(
    ("name",), name=_TEXT, ready=_FLAG, restartCount=_NUMBER, containerID=_TEXT, image=_TEXT
)
_POD = _open(
    spec=_open(
        ("containers",),
        nodeName=_TEXT,
        containers=_list_of(_CONTAINER) | {"minItems": 1},
        initContainers=_list_of(_CONTAINER),
        terminationGracePeriodSeconds=_NUMBER,
        hostNetwork=_FLAG,
    ),
    status=_open(
        phase=_TEXT,
        podIP=_TEXT,
        podIPs=_list_of(_open(ip=_TEXT)),
        conditions=_CONDITIONS,
        containerStatuses=_list_of(_CONTAINER_STATUS),
    ),
)
_NODE = _open(
    spec=_open(unschedulable=_FLAG),
    status=_open(
        conditions=_CONDITIONS,
        addresses=_list_of(_open(("type", "address"), type=_TEXT, address=_TEXT)),
        nodeInfo=_open(),
    ),
)
_REFERENCE = _open(
    **dict.fromkeys(("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion"), _TEXT)
)
_EVENT = _open(
    ("involvedObject",),
    involvedObject=_REFERENCE,
    reason=_TEXT,
    message=_TEXT,
    type=_TEXT,
    count=_NUMBER,
    firstTimestamp=_TEXT,
    lastTimestamp=_TEXT,
    source=_open(component=_TEXT, host=_TEXT),
)
_LEASE = _open(
    spec=_open(
        holderIdentity=_TEXT,
        leaseDurationSeconds=_NUMBER,
        acquireTime=_TEXT,
        renewTime=_TEXT,
        leaseTransitions=_NUMBER,
    )
)
_SERVICE = _open(
    spec=_open(
        type=_TEXT,
        clusterIP=_TEXT,
        selector=_TEXT_MAP,
        ports=_list_of(_open(("port",), port=_NUMBER, name=_TEXT, protocol=_TEXT)),
    )
)
_CONFIG_MAP = _open(data=_TEXT_MAP, binaryData=_TEXT_MAP, immutable=_FLAG)
_SECRET = _open(type=_TEXT, data=_TEXT_MAP, stringData=_TEXT_MAP, immutable=_FLAG)
_EVENT_FIELDS = (
    *(f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid")),
    *(f"involvedObject.{name}" for name in ("apiVersion", "resourceVersion", "fieldPath")),
    *("reason", "type", "source", "reportingComponent"),
)


def _as_it_is(obj: Object) -> Object:
    return obj


def _new_namespace(obj: Object) -> Object:
    metadata = obj["metadata"]
    labels = dict(metadata.get("labels") or {})
    if name := metadata.get("name"):  # without one it is about to be refused
        labels["kubernetes.io/metadata.name"] = name
    return obj | {
        "metadata": metadata | {"labels": labels},
        "spec": {},  # no finalizer of the server's own: it empties namespaces itself
        "status": obj.get("status") or {"phase": "Active"},
    }


def _new_pod(obj: Object) -> Object:
    obj = deepcopy(obj)
    spec = obj.get("spec")
    if isinstance(spec, dict):
        spec.setdefault("restartPolicy", "Always")
        spec.setdefault("terminationGracePeriodSeconds", 30)
    obj.setdefault("status", {"phase": "Pending"})
    return obj


def _new_secret(obj: Object) -> Object:
    obj = {"type": "Opaque", **obj}
    plain, kept = obj.pop("stringData", None), obj.get("data") or {}
    if isinstance(plain, dict) and isinstance(kept, dict):  # else it is about to be refused
        encoded = {k: b64encode(str(v).encode()).decode() for k, v in plain.items()}
        obj["data"] = {**kept, **encoded}
    return obj


def _new_service(obj: Object) -> Object:
    obj = deepcopy(obj)
    spec = obj.setdefault("spec", {})
    if isinstance(spec, dict):
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("clusterIP", "None")  # nothing balances here: names lead to targets
    return obj


def _nothing_more(_new: Object, _old: Object | None) -> list[Cause]:
    return []


def _about_its_namespace(new: Object, _old: Object | None) -> list[Cause]:
    """Refuse an Event that is not kept beside the object it tells of."""
    namespace, about = new["metadata"]["namespace"], new["involvedObject"].get("namespace", "")
    if about == namespace or (not about and namespace in ("default", "kube-system")):
        return []
    message = f'Invalid value: "{about}": does not match event.namespace'
    return [Cause("involvedObject.namespace", "FieldValueInvalid", message)]


def _same_containers(new: Object, old: Object | None) -> list[Cause]:
    """Refuse to move a running Pod or to change how many containers it has."""
    if old is None:
        return []
    spec, was = new["spec"], old["spec"]
    if len(spec["containers"]) != len(was["containers"]):
        message = "Forbidden: pod updates may not add or remove containers"
        return [Cause("spec.containers", "FieldValueForbidden", message)]
    names = [[c["name"] for c in each["containers"]] for each in (spec, was)]
    moved = was.get("nodeName") and spec.get("nodeName") != was["nodeName"]
    if names[0] == names[1] and not moved:
        return []
    message = "Forbidden: pod updates may not rename containers or move them to another node"
    return [Cause("spec", "FieldValueForbidden", message)]


def _kind(
    resource: Resource,
    schema: Schema,
    *,
    validate: Rule = _nothing_more,
    **more: Any,  # noqa: ANN401  (fields of ServedKind)
) -> ServedKind:
    def judge(new: Object, old: Object | None) -> list[Cause]:
        return problems(schema, new) or validate(new, old)

    return replace(ServedKind(resource, schema, _as_it_is, judge, status=False), **more)


def core_kinds() -> list[ServedKind]:
    """List the kinds that every embedded API serves."""
    return [
        _kind(
            NAMESPACE,
            _open(spec=_open(), status=_open(phase=_TEXT)),
            default=_new_namespace,
            columns=(Column("Status", ".status.phase"), AGE),
            short_names=("ns",),
            fields=("status.phase",),
        ),
        _kind(
            POD,
            _POD,
            default=_new_pod,
            validate=_same_containers,
            status=True,
            short_names=("po",),
            categories=("all",),
            fields=("spec.nodeName", "spec.restartPolicy", "status.phase", "status.podIP"),
        ),
        _kind(NODE, _NODE, status=True, short_names=("no",), fields=("spec.unschedulable",)),
        _kind(
            EVENT,
            _EVENT,
            validate=_about_its_namespace,
            short_names=("ev",),
            fields=_EVENT_FIELDS,
        ),
        _kind(CONFIG_MAP, _CONFIG_MAP, short_names=("cm",)),
        _kind(SECRET, _SECRET, default=_new_secret, fields=("type",)),
        _kind(
            SERVICE,
            _SERVICE,
            default=_new_service,
            status=True,
            short_names=("svc",),
            categories=("all",),
            fields=("spec.type", "spec.clusterIP"),
        ),
        _kind(
            LEASE,
            _LEASE,
            columns=(Column("Holder", ".spec.holderIdentity"), AGE),
        ),
    ]
