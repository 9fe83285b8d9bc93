"""The difference between two JSON values as a JSON patch (RFC 6902); pure."""

from collections.abc import Iterator
from typing import Any

from squall.api.cluster import Object

Json = Any
"""Any JSON value."""


def difference(before: Json, after: Json, path: str = "") -> Iterator[Object]:
    """Say what leads from one value to the other; nothing where they are equal.

    Lists of the same length are compared item by item, others are replaced.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before.keys() - after.keys():
            yield {"op": "remove", "path": f"{path}/{_escaped(name)}"}
        for name, value in after.items():
            below = f"{path}/{_escaped(name)}"
            if name in before:
                yield from difference(before[name], value, below)
            else:
                yield {"op": "add", "path": below, "value": value}
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from difference(old, new, f"{path}/{at}")
    elif not _same(before, after):
        yield {"op": "replace", "path": path, "value": after}


def _same(one: Json, other: Json) -> bool:
    # True == 1 for Python, and not for JSON.
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
