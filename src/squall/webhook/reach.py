"""Which namespaces an object reaches into, and as which kind; pure.

It reads raw JSON, so that it also knows kinds that have no model here: Schedules and Workflows
carry the specs of other kinds under known names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from squall.api.cluster import Object

GROUP = "chaos-mesh.org"

CARRIED = {"schedule": "schedules", "workflow": "workflows", "statusCheck": "statuschecks"}
"""Plural of what is carried under a name that does not end with `Chaos`."""

_PLURALS = {
    "PhysicalMachine": "physicalmachines",
    "RemoteCluster": "remoteclusters",
    "Schedule": "schedules",
    "StatusCheck": "statuschecks",
    "Workflow": "workflows",
    "WorkflowNode": "workflownodes",
}
_LISTED = ("pods", "physicalMachines")
"""Parts of a selector that name their targets by namespace."""


@dataclass(frozen=True, slots=True)
class Reach:
    """One selector, or one carried spec: where it acts, as a kind of its own."""

    field: str
    """JSON path of the selector; of the carried spec where that is meant."""
    plural: str
    """Kind that acts there."""
    namespaces: tuple[tuple[str, str], ...]
    """(JSON path, namespace) of each; an empty namespace stands for the whole cluster."""
    targets: tuple[tuple[str, str], ...] = ()
    """Those of them where targets are looked for; none where it is no selector."""
    share: str = ""
    """Part of the selected targets that is always hit, in percent as it was written; or empty."""


def plural_of(kind: str) -> str:
    """Name a kind of `chaos-mesh.org` as RBAC does: all but six by the kind in lower case."""
    return _PLURALS.get(kind, kind.lower())


def reaches(kind: str, namespace: str, obj: Object) -> Iterator[Reach]:
    """Find every selector of an object, those of carried specs included.

    A selector that names no namespace means the object's own. A spec that is carried acts as its
    own kind, so it also counts by itself, in the object's own namespace.

    Args:
        kind: of the object.
        namespace: its own; empty for a cluster-scoped one.
        obj: as it was sent; nothing of it is taken for granted.
    """
    waiting = [("spec", plural_of(kind), obj.get("spec"))]
    while waiting:  # no recursion: how deep it is, somebody else decided
        field, plural, value = waiting.pop()
        if isinstance(value, list):
            waiting += ((f"{field}[{at}]", plural, item) for at, item in enumerate(value))
        if not isinstance(value, dict):
            continue
        for name, part in value.items():
            below = f"{field}.{name}"
            carried = _carried(name, part)
            if carried:
                yield Reach(below, carried, ((below, namespace),))
            elif name == "selector" and isinstance(part, dict):
                yield _selector(below, plural, value, namespace)
            waiting.append((below, carried or plural, part))


def secrets_of(obj: Object) -> Iterator[tuple[str, str]]:
    """Find (namespace, name) of every Secret that an object, or what it carries, has read for it.

    Args:
        obj: as it was sent; nothing of it is taken for granted.
    """
    waiting: list[Any] = [obj.get("spec")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        if isinstance(value, dict):
            namespace, name = value.get("secretNamespace"), value.get("secretName")
            if isinstance(namespace, str) and isinstance(name, str):
                yield namespace, name
            waiting += value.values()


def _carried(name: str, part: Any) -> str:  # noqa: ANN401  (any JSON)
    if not isinstance(part, dict):
        return ""
    # Whatever ends so is a fault, also one that nobody has thought of yet.
    return name.lower() if name.endswith("Chaos") else CARRIED.get(name, "")


def _selector(field: str, plural: str, part: Object, own: str) -> Reach:
    selector = part["selector"]
    namespaces = selector.get("namespaces")
    named = [
        (f"{field}.namespaces[{at}]", name)
        for at, name in enumerate(namespaces if isinstance(namespaces, list) else ())
        if isinstance(name, str)
    ]
    listed: list[tuple[str, str]] = []
    for one_by_one in _LISTED:
        by_namespace = selector.get(one_by_one)
        names = by_namespace if isinstance(by_namespace, dict) else ()
        listed += [(f"{field}.{one_by_one}[{name}]", name) for name in names]
    everywhere = tuple(named + listed) or ((field, own),)
    # Targets that are listed are the only ones, whatever else the selector says.
    return Reach(field, plural, everywhere, tuple(listed) or everywhere, _share(field, part))


def _share(field: str, part: Object) -> str:
    mode, value = part.get("mode"), part.get("value")
    if "target" in part or field.endswith(".target.selector"):
        return ""  # which of two sides is hit, the kind decides
    if mode == "all":
        return "100"
    return value if mode == "fixed-percent" and isinstance(value, str) else ""
