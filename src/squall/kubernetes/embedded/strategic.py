"""Strategic merge patch, for the kinds of Kubernetes' own groups.

Source: Kubernetes, "Update API objects in place using kubectl patch" and
community/contributors/devel/sig-api-machinery/strategic-merge-patch.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from squall.kubernetes.embedded.refusals import bad_request

Json = Any

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "taints": ("key",),
    "addresses": ("type",),
    "podIPs": ("ip",),
    "ports": ("containerPort", "port"),
}
"""By which field the elements of a list are told apart: the first that all of them have."""

_SETS = ("finalizers",)
"""Lists of scalars that are merged as sets."""


def strategic_patch(target: Json, patch: Json, name: str = "") -> Json:
    """Apply a strategic merge patch and return a new value.

    Args:
        target: the value as it is; not changed.
        patch: what to change, with its `$` directives.
        name: the field that holds the value, which says how its list is merged.

    Raises:
        ApiError: 400, the patch does not have the form of its directives.
    """
    try:
        return _patched(target, patch, name)
    except (TypeError, AttributeError, ValueError) as wrong:
        raise bad_request(f"unable to apply the strategic merge patch: {wrong}") from wrong


def merge_key(name: str, items: Sequence[Json]) -> str | None:
    """Find the field by which these elements are told apart; None for an atomic list."""
    for key in MERGE_KEYS.get(name, ()):
        if all(isinstance(item, dict) and key in item for item in items):
            return key
    return None


def _patched(target: Json, patch: Json, name: str) -> Json:
    if isinstance(patch, dict):
        return _object(target if isinstance(target, dict) else {}, patch)
    if isinstance(patch, list) and name in MERGE_KEYS:
        return _keyed_list(target if isinstance(target, list) else [], patch, name)
    if isinstance(patch, list) and name in _SETS:
        there = target if isinstance(target, list) else []
        return [*there, *(item for item in patch if item not in there)]
    return patch


def _object(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    if patch.get("$patch") == "replace":
        return {field: value for field, value in patch.items() if field != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    result = dict(target)
    if (retained := patch.get("$retainKeys")) is not None:
        result = {field: value for field, value in result.items() if field in retained}
    for field, value in patch.items():
        if field.startswith("$deleteFromPrimitiveList/"):
            of = field.partition("/")[2]
            result[of] = [item for item in result.get(of) or [] if item not in value]
        elif value is None:
            result.pop(field, None)
        elif not field.startswith("$"):
            result[field] = _patched(result.get(field), value, field)
    _put_in_order(result, patch)
    return result


def _put_in_order(result: dict[str, Any], patch: dict[str, Any]) -> None:
    for field, order in patch.items():
        directive, _, of = field.partition("/")
        if directive == "$setElementOrder" and isinstance(result.get(of), list):
            result[of] = _ordered(result[of], order, merge_key(of, order))


def _keyed_list(target: list[Any], patch: list[Any], name: str) -> list[Any]:
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    key = merge_key(name, patch)
    if key is None:
        raise ValueError(f"elements of {name} need one of {MERGE_KEYS[name]}")
    result = list(target)
    for item in patch:
        at = next((i for i, there in enumerate(result) if there.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(_object({}, item))
        else:
            result[at] = _object(result[at], item)
    return result


def _ordered(items: list[Any], order: list[Any], key: str | None) -> list[Any]:
    def mark(item: Json) -> str:
        return repr(item.get(key) if key and isinstance(item, dict) else item)

    places = {mark(item): place for place, item in enumerate(order)}
    return sorted(items, key=lambda item: places.get(mark(item), len(places)))
