"""Label and field selectors, as the query strings of lists and watches carry them."""

import re
from collections.abc import Callable, Collection
from typing import Any

from squall.api.cluster import Object
from squall.kubernetes.embedded.refusals import bad_request

Test = Callable[[Object], bool]
"""Says whether an object is selected."""

ALWAYS_SELECTABLE = ("metadata.name", "metadata.namespace")

_SET = re.compile(r"(\S+)\s+(in|notin)\s*\(([^()]*)\)")
_EQUAL = re.compile(r"([^!=<>\s]+)\s*(==|=|!=)\s*([^!=<>\s]*)")
_EXISTS = re.compile(r"(!?)\s*([^!=<>()\s]+)")
_REQUIREMENT = re.compile(r"[^,(]+(?:\([^)]*\))?")
_NAME = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)


def label_test(selector: str) -> Test | None:
    """Read a label selector such as `app=web,tier in (a, b),!legacy`.

    Returns:
        What tests one object; None when everything is selected.

    Raises:
        ApiError: 400, it cannot be read.
    """
    if not selector.strip():
        return None
    if re.sub(_REQUIREMENT, "", selector).strip(", "):
        raise bad_request(f"unable to parse requirement: found {selector!r}")
    tests = [_label_requirement(part.strip()) for part in _REQUIREMENT.findall(selector)]

    def selected(obj: Object) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return selected


def field_test(selector: str, selectable: Collection[str]) -> Test | None:
    """Read a field selector such as `spec.nodeName=a,status.phase!=Failed`.

    Args:
        selector: comma-separated comparisons.
        selectable: JSON paths that may be named, besides name and namespace.

    Returns:
        What tests one object; None when everything is selected.

    Raises:
        ApiError: 400, it cannot be read, or names a field that is not selectable.
    """
    allowed = {path.removeprefix(".") for path in selectable}
    wanted = [_field_requirement(part, allowed) for part in selector.split(",") if part.strip()]
    if not wanted:
        return None

    def selected(obj: Object) -> bool:
        return all((field(obj, path) == value) == equal for path, equal, value in wanted)

    return selected


def field(obj: Any, path: str) -> str:  # noqa: ANN401  (any JSON value)
    """Read a field as a selector sees it: as text, empty when absent."""
    for name in path.split("."):
        obj = obj.get(name) if isinstance(obj, dict) else None
    if isinstance(obj, bool):
        return "true" if obj else "false"
    return "" if obj is None else str(obj)


def _label_requirement(text: str) -> Callable[[dict[str, str]], bool]:
    if found := _SET.fullmatch(text):
        name, within = found[1], found[2] == "in"
        values = {value.strip() for value in found[3].split(",")}
        test: Callable[[dict[str, str]], bool] = (
            (lambda labels: labels.get(name) in values)
            if within
            else (lambda labels: labels.get(name) not in values)
        )
    elif found := _EQUAL.fullmatch(text):
        name, equal, value = found[1], found[2] != "!=", found[3]
        test = lambda labels: (labels.get(name) == value) == equal  # noqa: E731
    elif found := _EXISTS.fullmatch(text):
        name, present = found[2], not found[1]
        test = lambda labels: (name in labels) == present  # noqa: E731
    else:
        raise bad_request(f"unable to parse requirement: {text!r}")
    if not _NAME.fullmatch(name):
        raise bad_request(f"unable to parse requirement: {name!r} is not a label key")
    return test


def _field_requirement(text: str, selectable: Collection[str]) -> tuple[str, bool, str]:
    found = re.fullmatch(r"([^!=]+)(==|=|!=)(.*)", text.strip())
    if not found:
        raise bad_request(f"invalid selector: '{text}'; can't understand '{text}'")
    if found[1] not in ALWAYS_SELECTABLE and found[1] not in selectable:
        raise bad_request(f"field label not supported: {found[1]}")
    return found[1], found[2] != "!=", found[3]
