"""What the API last said, kept here so that deciding costs no request."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from squall.api.cluster import Change, Event, Object, Resource

T = TypeVar("T")

_IDENTITY = ("namespace", "name", "uid", "resourceVersion")

Name = tuple[str, str]
"""Namespace and name."""


def name_of(obj: Object) -> Name:
    """Say where an object is."""
    return obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


class Cache(Generic[T]):
    """Every object of one kind, read once when it changes.

    Args:
        resource: the kind.
        read: makes of an object what is needed of it.
        changed: called with an object that came, went or reads differently now.
        whole: keep objects as they are too, for those who write them; else only who they are.
    """

    def __init__(
        self,
        resource: Resource,
        read: Callable[[Object], T],
        changed: Callable[[Object], None],
        *,
        whole: bool = True,
    ) -> None:
        self.resource = resource
        self.values: dict[Name, T] = {}
        self.objects: dict[Name, Object] = {}
        self.synced = asyncio.Event()
        self.changes = 0
        """Counts changes, for those who keep something that was made from all values."""
        self._read, self._changed, self._whole = read, changed, whole
        self._vanished: set[str] = set()
        """uids of objects that we let go, until the watch says that they are gone."""

    def take(self, event: Event) -> None:
        """Follow one line of a watch."""
        if event.change is Change.SYNCED:
            self.synced.set()
        elif event.change is Change.DELETED:
            self._vanished.discard(event.object["metadata"].get("uid", ""))
            self._drop(event.object)
        else:
            self.put(event.object)

    def vanish(self, obj: Object) -> None:
        """Drop an object that is gone by our own write, whatever a late watch still says of it."""
        self._vanished.add(obj["metadata"].get("uid", ""))
        self._drop(obj)

    def put(self, obj: Object) -> None:
        """Keep an object unless a newer version is known: a watch is later than one's own writes.

        Source: resourceVersions of one kind may be compared as numbers (KEP-5504).
        """
        name = name_of(obj)
        if obj["metadata"].get("uid", "") in self._vanished:
            return
        known = self.objects.get(name)
        if known and _same(known, obj) and _version(known) >= _version(obj):
            return
        value = self._read(obj)
        news = known is None or not _same(known, obj) or value != self.values[name]
        self.objects[name], self.values[name] = obj if self._whole else _identity(obj), value
        if news:  # a heartbeat in a node's status concerns nobody here
            self.changes += 1
            self._changed(obj)

    def _drop(self, obj: Object) -> None:
        name = name_of(obj)
        known = self.objects.get(name)
        if known and _same(known, obj):
            del self.objects[name], self.values[name]
            self.changes += 1
            self._changed(obj)


def _identity(obj: Object) -> Object:
    meta = obj["metadata"]
    return {"metadata": {name: meta[name] for name in _IDENTITY if name in meta}}


def _same(one: Object, other: Object) -> bool:
    return bool(one["metadata"].get("uid") == other["metadata"].get("uid"))


def _version(obj: Object) -> int:
    return int(obj["metadata"].get("resourceVersion") or 0)
