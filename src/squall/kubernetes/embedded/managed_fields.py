"""Who owns which field: sets of paths, as `metadata.managedFields` encodes them.

A path is a tuple of steps: `f:name` a field, `k:{"name":"a"}` an element of a list that is keyed
by some of its fields, `.` the element itself.

Source: Kubernetes' structured-merge-diff, format FieldsV1.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson

from squall.api.cluster import Object
from squall.kubernetes.embedded.strategic import merge_key

Path = tuple[str, ...]
Json = Any

_UNOWNED = {
    ("f:apiVersion",),
    ("f:kind",),
    *(
        ("f:metadata", f"f:{name}")
        for name in (
            *("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp"),
            *("managedFields", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"),
            "generateName",
        )
    ),
}
"""Fields of the server's own."""

Keyed = Callable[[str, Sequence[Json]], str | None]
"""(name of a list, its elements) -> the field they are merged by; None for an atomic list."""


def keyed(*, core: bool) -> Keyed:
    """Say by which field lists are merged; without a schema only those of metadata are."""
    if core:
        return merge_key
    return lambda name, items: merge_key(name, items) if name == "ownerReferences" else None


def leaves(value: Json, by: Keyed, path: Path = (), name: str = "") -> dict[Path, Json]:
    """Take an object apart into the paths that can be owned, with their values."""
    if path in _UNOWNED:
        return {}
    found: dict[Path, Json] = {}
    if isinstance(value, dict) and value:
        for field, item in value.items():
            found |= leaves(item, by, (*path, f"f:{field}"), field)
        return found
    if isinstance(value, list) and value and (key := by(name, value)):
        for item in value:
            step = (*path, f"k:{orjson.dumps({key: item[key]}).decode()}")
            found[(*step, ".")] = True
            found |= leaves(item, by, step)
        return found
    return {path: value}


def encode(paths: Iterable[Path]) -> dict[str, Any]:
    """Write a set of paths as FieldsV1."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        branch = tree
        for step in path:
            branch = branch.setdefault(step, {})
    return tree


def decode(tree: Json) -> set[Path]:
    """Read FieldsV1; what is not a tree of objects is an empty set."""
    found: set[Path] = set()
    rest: list[tuple[Path, Json]] = [((), tree)]
    while rest:
        path, branch = rest.pop()
        if isinstance(branch, dict) and branch:
            rest += [((*path, step), below) for step, below in branch.items()]
        elif path:
            found.add(path)
    return found


def spell(path: Path) -> str:
    """Write a path for people, as in `.spec.containers[name="a"].image`."""
    said = ""
    for step in path:
        if step.startswith("f:"):
            said += f".{step[2:]}"
        elif step.startswith("k:"):
            keys = orjson.loads(step[2:]).items()
            said += f"[{','.join(f'{k}={orjson.dumps(v).decode()}' for k, v in keys)}]"
    return said


def record_update(
    before: Object | None, obj: Object, manager: str, now: datetime, *, core: bool, part: str = ""
) -> None:
    """Note in `obj` that `manager` now owns what differs from `before`.

    Args:
        before: as stored; None at creation.
        obj: as it will be stored; its managedFields are replaced.
        manager: who writes.
        now: the moment, in UTC.
        core: are lists merged by the keys of Kubernetes' own kinds?
        part: the subresource that is written; empty for the main one.
    """
    by = keyed(core=core)
    had = leaves(before, by) if before else {}
    has = leaves(obj, by)
    changed = {path for path, value in has.items() if path not in had or had[path] != value}
    gone = had.keys() - has.keys()
    entries = (before or {}).get("metadata", {}).get("managedFields", [])
    if changed or gone:
        entries = _after_update(entries, changed, gone, _entry(obj, manager, now, part))
    if entries:
        obj["metadata"]["managedFields"] = in_order(entries)
    else:
        obj["metadata"].pop("managedFields", None)


def in_order(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort the entries of managedFields as a Kubernetes API server does."""

    def rank(entry: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(entry.get(name) or "") for name in ("operation", "time", "manager"))

    return sorted(entries, key=rank)


def _after_update(
    entries: list[dict[str, Any]],
    changed: set[Path],
    gone: Iterable[Path],
    mine: dict[str, Any],
) -> list[dict[str, Any]]:
    kept, owned = [], set(changed)
    for entry in entries:
        fields = decode(entry.get("fieldsV1")) - set(gone)
        if _owner(entry) == _owner(mine):
            if not changed:
                mine["time"] = entry.get("time", mine["time"])
            owned |= fields
        elif fields := fields - changed:
            kept.append({**entry, "fieldsV1": encode(fields)})
    return [*kept, {**mine, "fieldsV1": encode(owned)}] if owned else kept


def _entry(obj: Object, manager: str, now: datetime, part: str) -> dict[str, Any]:
    return {
        "manager": manager,
        "operation": "Update",
        "apiVersion": obj["apiVersion"],
        "time": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "fieldsType": "FieldsV1",
        **({"subresource": part} if part else {}),
    }


def _owner(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry.get("manager"), entry.get("operation"), entry.get("subresource", "")
