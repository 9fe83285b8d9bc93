"""What `kubectl get` shows: a kind's columns, with ages as text."""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from squall.api.cluster import Object
from squall.api.served import ServedKind
from squall.kubernetes.embedded.kinds import is_core
from squall.kubernetes.embedded.printers import PRINTERS, Cell, Heading

_STEP = re.compile(r'([\w/-]+)|\[\?\(@\.(\w+)\s*==\s*["\']([^"\']*)["\']\)\]|\[(\d+)\]')
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_YEAR = 365 * _DAY


def headings(kind: ServedKind) -> list[Heading]:
    """List the columns of a kind, the name among them."""
    printer = PRINTERS.get(kind.resource)
    if printer:
        return list(printer.headings)
    return [
        Heading("Name", format="name"),
        *(Heading(column.name, column.type) for column in kind.columns),
    ]


def cells(kind: ServedKind, obj: Object, now: datetime) -> list[Cell]:
    """Give the values of one row, in the order of `headings`."""
    printer = PRINTERS.get(kind.resource)
    if printer:
        try:
            return printer.cells(obj, lambda moment: age(moment, now))
        except (AttributeError, TypeError, ValueError):  # a field nobody checks has another type
            return [obj["metadata"]["name"], *([None] * (len(printer.headings) - 1))]
    row: list[Cell] = [obj["metadata"].get("name", "")]
    for column in kind.columns:
        value = look_up(obj, column.path)
        if column.type == "date":
            value = age(value, now) if value else "<unknown>" if is_core(kind.resource) else None
        row.append(value)
    return row


def table(
    kind: ServedKind,
    objects: Iterable[Object],
    metadata: dict[str, Any],
    *,
    include: str = "Metadata",
    with_headings: bool = True,
    now: datetime | None = None,
) -> Object:
    """Encode objects as a `meta.k8s.io/v1` Table.

    Args:
        kind: their kind.
        objects: one row each.
        metadata: of the list they come from.
        include: what of an object each row carries: None, Metadata or Object.
        with_headings: False for later lines of a watch.
        now: the moment ages are counted to; by default this one.
    """
    now = now or datetime.now(UTC)
    columns = [heading.wire() for heading in headings(kind)] if with_headings else []
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": [{"cells": cells(kind, obj, now), **_carried(obj, include)} for obj in objects],
    }


def partial(obj: Object) -> Object:
    """Reduce an object to its metadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj["metadata"],
    }


def age(moment: object, now: datetime) -> str:
    """Say how long ago a moment was, as `kubectl` does: 90s, 5m10s, 3h, 2d4h."""
    try:
        then = datetime.fromisoformat(str(moment))
        seconds = int((now - then).total_seconds())
    except (ValueError, TypeError):
        return "<unknown>"
    if seconds < 0:
        return "<invalid>" if seconds < -1 else "0s"
    if seconds < 2 * _MINUTE:
        return f"{seconds}s"
    for unit, letter, smaller, small, fine, whole in _SCALE:
        if seconds < fine:
            rest = seconds % unit // smaller
            return f"{seconds // unit}{letter}" + (f"{rest}{small}" if rest else "")
        if seconds < whole:
            return f"{seconds // unit}{letter}"
    return f"{seconds // _YEAR}y"


_SCALE = (
    # unit, its letter, the smaller unit, its letter, until when both show, until when one does
    (_MINUTE, "m", 1, "s", 10 * _MINUTE, 3 * _HOUR),
    (_HOUR, "h", _MINUTE, "m", 8 * _HOUR, 2 * _DAY),
    (_DAY, "d", _HOUR, "h", 8 * _DAY, 2 * _YEAR),
    (_YEAR, "y", _DAY, "d", 8 * _YEAR, 8 * _YEAR),
)


def look_up(obj: object, path: str) -> Cell:
    """Read the value at a JSON path such as `.status.conditions[?(@.type=="Ready")].status`.

    Returns:
        None where there is nothing; text for what is not a scalar.
    """
    for step in _steps(path):
        obj = step(obj)
        if obj is None:
            return None
    return obj if isinstance(obj, str | int | float | bool) else str(obj)


Step = Callable[[Any], Any]


@cache
def _steps(path: str) -> Sequence[Step]:
    return tuple(_step(found) for found in _STEP.finditer(path))


def _step(found: re.Match[str]) -> Step:
    name, key, wanted, index = found.groups()
    if name is not None:
        return lambda value: value.get(name) if isinstance(value, dict) else None
    if index is not None:
        return lambda value: (
            value[int(index)] if isinstance(value, list) and int(index) < len(value) else None
        )
    return lambda value: next(
        (i for i in _items(value) if isinstance(i, dict) and i.get(key) == wanted), None
    )


def _items(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _carried(obj: Object, include: str) -> dict[str, Any]:
    match include:
        case "None":
            return {}
        case "Object":
            return {"object": obj}
        case _:
            return {"object": partial(obj)}
