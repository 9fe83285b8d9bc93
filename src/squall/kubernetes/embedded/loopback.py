"""The port `Cluster` straight onto the store: for whoever lives in the server's own process."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import orjson

from squall.api.cluster import ApiError, Change, Event, Object, Resource
from squall.kubernetes.embedded.admission import WriteOptions
from squall.kubernetes.embedded.apply import apply
from squall.kubernetes.embedded.deletion import DeleteOptions
from squall.kubernetes.embedded.objects import Objects, place_of
from squall.kubernetes.embedded.patches import merge_patch
from squall.kubernetes.embedded.refusals import no_such_path, qualified
from squall.kubernetes.embedded.selectors import field_test, label_test
from squall.kubernetes.embedded.watching import View, follow

EXPIRED = 410


class Loopback:
    """Reads and writes objects with the same rules as over HTTP, without the way there.

    Args:
        objects: the verbs, over the store that the server uses.
        manager: the name under which writes appear in `managedFields`.
    """

    def __init__(self, objects: Objects, manager: str = "squall") -> None:
        self._objects = objects
        self._manager = manager

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Read one object."""
        return self._objects.get(self._objects.kinds.of(resource), namespace, name)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
    ) -> list[Object]:
        """Read all objects that match."""
        return [*self._matching(resource, self._view(resource, namespace, labels, fields))]

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
    ) -> AsyncGenerator[Event]:
        """Follow objects for ever; one that falls behind the log sees all of them again."""
        view = self._view(resource, namespace, labels, fields)
        known: dict[str, Object] = {}
        while True:
            version = self._objects.store.version
            for event in _differences(known, self._matching(resource, view)):
                _note(known, event)
                yield event
            yield Event(Change.SYNCED, {})
            try:
                changes = follow(self._objects.store, qualified(resource), version)
                async with aclosing(changes):
                    async for entry in changes:
                        seen = view.of(entry) if entry else None
                        if seen is not None:
                            _note(known, seen)
                            yield seen
            except ApiError as refused:
                if refused.code != EXPIRED:
                    raise

    async def create(self, resource: Resource, obj: Object) -> Object:
        """Store a new object; its metadata names the namespace."""
        kind = self._objects.kinds.of(resource)
        copy = _copied(obj)
        return self._objects.create(
            kind, copy.get("metadata", {}).get("namespace"), copy, WriteOptions(self._manager)
        )

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any],
        *,
        subresource: str = "",
    ) -> Object:
        """Merge-patch an object."""
        kind = self._objects.kinds.of(resource)
        if subresource and not (subresource == "status" and kind.status):
            raise no_such_path()
        copy = _copied(patch)
        return self._objects.change(
            kind,
            namespace,
            name,
            lambda stored: merge_patch(stored, copy),
            WriteOptions(self._manager),
            part=subresource,
        )

    async def apply(self, resource: Resource, obj: Object, *, manager: str) -> Object:
        """Bring an object to what one manager wants of it; create it if needed."""
        kind = self._objects.kinds.of(resource)
        wanted = _copied({"apiVersion": resource.api_version, "kind": resource.kind, **obj})
        place = place_of(resource, wanted["metadata"].get("namespace"), wanted["metadata"]["name"])
        options = WriteOptions(manager)
        applied, _ = apply(self._objects, kind, place, wanted, options, force=True)
        return applied

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str = "",
        grace_seconds: int | None = None,
    ) -> None:
        """Ask for deletion."""
        self._objects.kinds.of(resource)
        options = DeleteOptions(uid=uid, grace_seconds=grace_seconds)
        self._objects.deletion.delete(resource, place_of(resource, namespace, name), options)

    def _view(self, resource: Resource, namespace: str | None, labels: str, fields: str) -> View:
        kind = self._objects.kinds.of(resource)
        tests = (label_test(labels), field_test(fields, kind.fields))
        where = namespace if resource.namespaced else None
        return View(where, tuple(test for test in tests if test))

    def _matching(self, resource: Resource, view: View) -> Sequence[Object]:
        bodies = self._objects.store.bodies(qualified(resource), view.namespace)
        return [obj for body in bodies if view.shows(obj := orjson.loads(body))]


def _copied(value: Mapping[str, Any]) -> dict[str, Any]:
    """Copy through the encoding, so that what cannot be stored fails here."""
    copy: dict[str, Any] = orjson.loads(orjson.dumps(value))
    return copy


def _note(known: dict[str, Object], event: Event) -> None:
    uid = event.object["metadata"]["uid"]
    if event.change is Change.DELETED:
        known.pop(uid, None)
    else:
        known[uid] = event.object


def _differences(known: dict[str, Object], found: Sequence[Object]) -> list[Event]:
    """Say what has changed between what a watcher knew and what is there."""
    there = {obj["metadata"]["uid"] for obj in found}
    events = [Event(Change.DELETED, obj) for uid, obj in known.items() if uid not in there]
    for obj in found:
        before = known.get(obj["metadata"]["uid"])
        if before is None:
            events.append(Event(Change.ADDED, obj))
        elif before["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            events.append(Event(Change.MODIFIED, obj))
    return events
