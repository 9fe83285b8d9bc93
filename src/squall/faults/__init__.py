"""Rooms: one folder for each fault kind, and nothing else in here."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from squall.injection.kind import FaultKind


@cache
def kinds() -> Mapping[str, FaultKind]:
    """Look into every folder here and collect its `KIND`, by its name on the wire.

    Raises:
        ImportError: a room does not import, or has no KIND; none is ever skipped.
        ValueError: two rooms claim one name.
    """
    found: dict[str, FaultKind] = {}
    for room in iter_modules(__path__, f"{__name__}."):
        kind: FaultKind | None = getattr(import_module(room.name), "KIND", None)
        if kind is None:
            raise ImportError(f"{room.name} is a room without a KIND")
        name = kind.resource.kind
        if name in found:
            raise ValueError(f"{room.name} claims {name}, which another room already has")
        found[name] = kind
    return found
