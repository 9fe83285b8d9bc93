"""Columns of Kubernetes' own kinds that are more than one field."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from squall.api.cluster import CONFIG_MAP, EVENT, NODE, POD, SECRET, SERVICE, Object, Resource

Cell = str | int | float | bool | None
Age = Callable[[object], str]
"""(moment as text) -> how long ago."""

_NONE = "<none>"
_UNKNOWN = "<unknown>"


@dataclass(frozen=True, slots=True)
class Heading:
    """One column of a table."""

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    """1 where only `-o wide` shows it."""

    def wire(self) -> dict[str, Any]:
        """Encode it for a Table."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.name,
            "priority": self.priority,
        }


@dataclass(frozen=True, slots=True)
class Printer:
    """How objects of one kind become rows."""

    headings: tuple[Heading, ...]
    cells: Callable[[Object, Age], list[Cell]]


def _columns(shown: str, wide: str = "") -> tuple[Heading, ...]:
    return tuple(
        Heading(name, format="name" if name == "Name" else "", priority=priority)
        for priority, names in enumerate((shown, wide))
        for name in filter(None, names.split("|"))
    )


def _pod(obj: Object, age: Age) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    containers = status.get("containerStatuses") or []
    ready = sum(bool(container.get("ready")) for container in containers)
    restarts = sum(container.get("restartCount", 0) for container in containers)
    return [
        obj["metadata"]["name"],
        f"{ready}/{len(spec.get('containers', ()))}",
        _pod_status(obj, containers),
        str(restarts),
        _age_of(obj, age),
        status.get("podIP") or _NONE,
        spec.get("nodeName") or _NONE,
        status.get("nominatedNodeName") or _NONE,
        _NONE,
    ]


def _pod_status(obj: Object, containers: list[dict[str, Any]]) -> str:
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    status = obj.get("status") or {}
    for container in containers:
        state = container.get("state") or {}
        for kind in ("waiting", "terminated"):
            reason = (state.get(kind) or {}).get("reason")
            if reason:
                return str(reason)
    return str(status.get("reason") or status.get("phase") or _UNKNOWN)


def _node(obj: Object, age: Age) -> list[Cell]:
    status = obj.get("status") or {}
    conditions = status.get("conditions") or []
    ready = next((c.get("status") for c in conditions if c.get("type") == "Ready"), "Unknown")
    said = {"True": "Ready", "False": "NotReady"}.get(str(ready), "Unknown")
    if (obj.get("spec") or {}).get("unschedulable"):
        said += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    roles = sorted(name.removeprefix(prefix) for name in labels if name.startswith(prefix))
    about = status.get("nodeInfo") or {}
    addresses = {a.get("type"): a.get("address") for a in status.get("addresses") or []}
    return [
        obj["metadata"]["name"],
        said,
        ",".join(roles) or _NONE,
        _age_of(obj, age),
        about.get("kubeletVersion", ""),
        addresses.get("InternalIP") or _NONE,
        addresses.get("ExternalIP") or _NONE,
        about.get("osImage") or _UNKNOWN,
        about.get("kernelVersion") or _UNKNOWN,
        about.get("containerRuntimeVersion") or _UNKNOWN,
    ]


def _event(obj: Object, age: Age) -> list[Cell]:
    about, source = obj.get("involvedObject") or {}, obj.get("source") or {}
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    last = obj.get("lastTimestamp") or first
    seen = age(last) if last else _UNKNOWN
    if obj.get("count", 1) > 1 and first:
        seen = f"{seen} (x{obj['count']} over {age(first)})"
    component = source.get("component") or obj.get("reportingComponent", "")
    host = source.get("host")
    return [
        seen,
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}",
        str(obj.get("message", "")).strip(),
        about.get("fieldPath", ""),
        f"{component}, {host}" if host else component,
        age(first) if first else _UNKNOWN,
        obj.get("count", 1),
        obj["metadata"]["name"],
    ]


def _secret(obj: Object, age: Age) -> list[Cell]:
    count = len(obj.get("data") or {})
    return [obj["metadata"]["name"], obj.get("type", ""), count, _age_of(obj, age)]


def _config_map(obj: Object, age: Age) -> list[Cell]:
    count = len(obj.get("data") or {}) + len(obj.get("binaryData") or {})
    return [obj["metadata"]["name"], count, _age_of(obj, age)]


def _service(obj: Object, age: Age) -> list[Cell]:
    spec = obj.get("spec") or {}
    ports = [f"{p.get('port')}/{p.get('protocol', 'TCP')}" for p in spec.get("ports") or []]
    selector = spec.get("selector") or {}
    return [
        obj["metadata"]["name"],
        spec.get("type", ""),
        spec.get("clusterIP") or _NONE,
        _NONE,
        ",".join(ports) or _NONE,
        _age_of(obj, age),
        ",".join(f"{k}={v}" for k, v in selector.items()) or _NONE,
    ]


def _age_of(obj: Object, age: Age) -> str:
    created = obj["metadata"].get("creationTimestamp")
    return age(created) if created else _UNKNOWN


PRINTERS: Mapping[Resource, Printer] = {
    POD: Printer(
        _columns("Name|Ready|Status|Restarts|Age", "IP|Node|Nominated Node|Readiness Gates"),
        _pod,
    ),
    NODE: Printer(
        _columns(
            "Name|Status|Roles|Age|Version",
            "Internal-IP|External-IP|OS-Image|Kernel-Version|Container-Runtime",
        ),
        _node,
    ),
    EVENT: Printer(
        _columns("Last Seen|Type|Reason|Object|Message", "Subobject|Source|First Seen|Count|Name"),
        _event,
    ),
    SECRET: Printer(_columns("Name|Type|Data|Age"), _secret),
    CONFIG_MAP: Printer(_columns("Name|Data|Age"), _config_map),
    SERVICE: Printer(
        _columns("Name|Type|Cluster-IP|External-IP|Port(s)|Age", "Selector"), _service
    ),
}
"""Kinds whose rows are not simply the fields of `ServedKind.columns`."""
