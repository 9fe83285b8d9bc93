"""Server-side apply: a manager says which fields it wants, and owns them from then on."""

from datetime import datetime
from typing import Any

import orjson

from squall.api.cluster import Object
from squall.api.served import Cause, ServedKind
from squall.kubernetes.embedded.admission import WriteOptions
from squall.kubernetes.embedded.kinds import is_core
from squall.kubernetes.embedded.managed_fields import (
    Json,
    Path,
    decode,
    encode,
    in_order,
    keyed,
    leaves,
    spell,
)
from squall.kubernetes.embedded.objects import AppliedFields, Objects, now_utc
from squall.kubernetes.embedded.patches import merge_patch
from squall.kubernetes.embedded.refusals import apply_conflict
from squall.kubernetes.embedded.store import Place
from squall.kubernetes.embedded.strategic import strategic_patch


def apply(
    objects: Objects,
    kind: ServedKind,
    place: Place,
    wanted: Object,
    options: WriteOptions,
    *,
    force: bool,
    part: str = "",
) -> tuple[Object, bool]:
    """Apply what a manager wants to a stored object, or create it.

    Returns:
        The object, and whether it is new.

    Raises:
        ApiError: as `Objects.create`, `Objects.change` and `server_side_apply` do.
    """
    now, core = now_utc(), is_core(kind.resource)
    if kind.status and not part:
        wanted = {field: value for field, value in wanted.items() if field != "status"}

    def edit(stored: Object) -> Object:
        return server_side_apply(stored, wanted, options.manager, now, force=force, core=core)

    if objects.store.get(place) or part:
        return objects.change(kind, place.namespace, place.name, edit, options, part=part), False
    new = edit({field: wanted[field] for field in ("apiVersion", "kind")} | {"metadata": {}})
    return objects.create(kind, place.namespace, new, options), True


def server_side_apply(
    old: Object, wanted: Object, manager: str, now: datetime, *, force: bool, core: bool
) -> Object:
    """Bring an object to what a manager wants, and take away what it no longer asks for.

    Args:
        old: as stored, or a bare envelope where nothing is; may be changed.
        wanted: the fields the manager has an opinion on.
        manager: its name.
        now: the moment, in UTC.
        force: take over fields that others own.
        core: are lists merged by the keys of Kubernetes' own kinds?

    Returns:
        The new object, with the new managedFields.

    Raises:
        Conflict: others own fields with another value, and `force` is not set.
    """
    by = keyed(core=core)
    asked, there = leaves(wanted, by), leaves(old, by)
    entries: list[dict[str, Any]] = old["metadata"].get("managedFields", [])
    mine = [e for e in entries if _is_apply_of(e, manager)]
    others = [e for e in entries if not _is_apply_of(e, manager)]
    taken = {
        path: entry
        for entry in others
        for path in decode(entry.get("fieldsV1")) & asked.keys()
        if path[-1] != "." and there.get(path) != asked[path]
    }
    if taken and not force:
        raise apply_conflict([_cause(path, entry) for path, entry in taken.items()])
    new: Object = strategic_patch(old, wanted) if core else merge_patch(old, wanted)
    owned_by_others = {path for entry in others for path in decode(entry.get("fieldsV1"))}
    owned_before = {path for entry in mine for path in decode(entry.get("fieldsV1"))}
    dropped = owned_before - asked.keys() - owned_by_others
    for path in sorted(dropped, key=len, reverse=True):
        _remove(new, path)
    kept = [
        {**entry, "fieldsV1": encode(fields)}
        for entry in others
        if (fields := decode(entry.get("fieldsV1")) - taken.keys())
    ]
    unchanged = bool(mine) and owned_before == set(asked)
    time = mine[0].get("time") if unchanged else now.strftime("%Y-%m-%dT%H:%M:%SZ")
    applied = {
        "manager": manager,
        "operation": "Apply",
        "apiVersion": wanted["apiVersion"],
        "time": time,
        "fieldsType": "FieldsV1",
        "fieldsV1": encode(asked),
    }
    new["metadata"] = {
        **new["metadata"],
        "managedFields": AppliedFields(in_order([applied, *kept])),
    }
    return new


def _is_apply_of(entry: dict[str, Any], manager: str) -> bool:
    return (entry.get("manager"), entry.get("operation")) == (manager, "Apply")


def _cause(path: Path, entry: dict[str, Any]) -> Cause:
    using = f" using {entry.get('apiVersion')}" if entry.get("operation") == "Update" else ""
    message = f'conflict with "{entry.get("manager")}"{using}'
    return Cause(spell(path), "FieldManagerConflict", message)


def _remove(obj: Json, path: Path) -> None:
    """Take a field or element away, and what is empty after it."""
    parents = [obj]
    steps = path[:-1] if path[-1] == "." else path
    for step in steps[:-1]:
        found = _below(parents[-1], step)
        if found is None:
            return
        parents.append(found)
    for parent, step in zip(reversed(parents), reversed(steps), strict=True):
        if step.startswith("k:") and isinstance(parent, list):
            found = _below(parent, step)
            if found is not None:
                parent.remove(found)
        elif isinstance(parent, dict):
            parent.pop(step[2:], None)
        if parent:
            return


def _below(parent: Json, step: str) -> Json:
    name = step[2:]
    if step.startswith("f:"):
        return parent.get(name) if isinstance(parent, dict) else None
    keys = orjson.loads(name).items()
    items = parent if isinstance(parent, list) else []
    return next((i for i in items if all(i.get(k) == v for k, v in keys)), None)
