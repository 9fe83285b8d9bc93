"""A Kubernetes API in memory, for tests of whoever talks through the port `Cluster`."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from itertools import count
from typing import Any

from squall.api.cluster import (
    AlreadyExists,
    ApiError,
    Change,
    Conflict,
    Event,
    NotFound,
    Object,
    Resource,
    Unreachable,
)

_Key = tuple[Resource, str, str]


class FakeCluster:
    """Holds objects by resource, namespace and name; serves every kind and validates none.

    `down` makes every call fail as an API server that does not answer; `calls` lists what was
    asked, for tests that count requests; `on_call` runs before each call and may raise, which is
    how a test kills the caller at any of them.
    """

    def __init__(self, now: datetime = datetime(2026, 1, 1, 12, tzinfo=UTC)) -> None:
        self.objects: dict[_Key, Object] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.down = False
        self._applied: dict[tuple[_Key, str], Object] = {}
        self.now = now
        self._versions, self._uids = count(1), count(1)
        self._watchers: list[tuple[Resource, str | None, str, str, asyncio.Queue[Event]]] = []

    def on_call(self, verb: str, resource: Resource, name: str) -> None:
        """Notice a call; replace it in a test that wants to interfere."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Read one object."""
        self._called("get", resource, name)
        return deepcopy(self._found(resource, namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
    ) -> list[Object]:
        """Read what matches, in the order of namespaces and names."""
        self._called("list", resource, "")
        return [deepcopy(one) for one in self._all(resource, namespace, labels, fields)]

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
    ) -> AsyncGenerator[Event]:
        """Follow objects; never breaks, and is silent while `down`."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        watcher = (resource, namespace, labels, fields, queue)
        self._watchers.append(watcher)
        try:
            for obj in self._all(resource, namespace, labels, fields):
                yield Event(Change.ADDED, deepcopy(obj))
            yield Event(Change.SYNCED, {})
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(watcher)

    async def create(self, resource: Resource, obj: Object) -> Object:
        """Store a new object; gives it a uid, a version and a generation."""
        obj = deepcopy(obj)
        meta = obj["metadata"]
        self._called("create", resource, meta.get("name", ""))
        if "name" not in meta:
            meta["name"] = f"{meta['generateName']}{next(self._uids):05x}"
        key = (resource, meta.get("namespace") or "", meta["name"])
        if key in self.objects:
            raise AlreadyExists(409, "AlreadyExists", f"{_said(key)} already exists")
        if resource.group:
            obj.pop("status", None)  # as a server does where status is a subresource
        number = next(self._uids)
        meta |= {
            "uid": f"{number:08x}-0000-4000-8000-{number:012x}",
            "creationTimestamp": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "generation": 1,
        }
        obj |= {"apiVersion": resource.api_version, "kind": resource.kind}
        return self._store(key, obj, Change.ADDED)

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any],
        *,
        subresource: str = "",
    ) -> Object:
        """Merge-patch; a patch that changes nothing keeps the version."""
        self._called("patch", resource, name)
        old = self._found(resource, namespace, name)
        wanted = patch.get("metadata", {}).get("resourceVersion")
        key = (resource, namespace or "", name)
        if wanted is not None and wanted != old["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", f"{_said(key)}: the object has been modified")
        part = dict(patch)
        if subresource == "status":
            part = {name: value for name, value in patch.items() if name == "status"}
        elif resource.group:
            part.pop("status", None)
        new = merged(old, part)
        if new == old:
            return deepcopy(old)
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] += 1
        if "deletionTimestamp" not in new["metadata"]:
            return self._store(key, new, Change.MODIFIED)
        held = set(new["metadata"].get("finalizers") or ())
        if held - set(old["metadata"]["finalizers"]):
            message = f"{_said(key)} is being deleted; no new finalizers can be added"
            raise ApiError(422, "Invalid", message)
        return self._store(key, new, Change.MODIFIED if held else Change.DELETED)

    async def apply(self, resource: Resource, obj: Object, *, manager: str) -> Object:
        """Merge what is wanted, take away what this manager named before; lists are replaced."""
        where, name = obj["metadata"].get("namespace"), obj["metadata"]["name"]
        wanted = {key: value for key, value in obj.items() if key != "status" or not resource.group}
        key = ((resource, where or "", name), manager)
        if key[0] not in self.objects:
            self._applied[key] = deepcopy(wanted)
            return await self.create(resource, wanted)
        patch = _difference(self._applied.get(key, {}), wanted)
        self._applied[key] = deepcopy(wanted)
        return await self.patch(resource, where, name, patch)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str = "",
        grace_seconds: int | None = None,
    ) -> None:
        """Delete, or mark as being deleted while finalizers hold it."""
        self._called("delete", resource, name)
        old = self._found(resource, namespace, name)
        key = (resource, namespace or "", name)
        if uid and uid != old["metadata"]["uid"]:
            raise Conflict(409, "Conflict", f"{_said(key)}: its uid is another")
        if not old["metadata"].get("finalizers"):
            self._store(key, deepcopy(old), Change.DELETED)
        elif "deletionTimestamp" not in old["metadata"]:
            new = deepcopy(old)
            new["metadata"] |= {
                "deletionTimestamp": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "deletionGracePeriodSeconds": grace_seconds or 0,
                "generation": old["metadata"]["generation"] + 1,
            }
            self._store(key, new, Change.MODIFIED)

    def _called(self, verb: str, resource: Resource, name: str) -> None:
        self.calls.append((verb, resource.kind, name))
        self.on_call(verb, resource, name)
        if self.down:
            raise Unreachable(0, "Unreachable", "the API does not answer; is it running?")

    def _found(self, resource: Resource, namespace: str | None, name: str) -> Object:
        key = (resource, namespace or "", name)
        if key not in self.objects:
            raise NotFound(404, "NotFound", f"{_said(key)} not found")
        return self.objects[key]

    def _all(
        self, resource: Resource, namespace: str | None, labels: str, fields: str
    ) -> Sequence[Object]:
        return [
            obj
            for (kind, where, _), obj in sorted(self.objects.items(), key=lambda i: i[0][1:])
            if kind == resource
            and namespace in (None, where)
            and _has(obj, labels)
            and _is(obj, fields)
        ]

    def _store(self, key: _Key, obj: Object, change: Change) -> Object:
        obj["metadata"]["resourceVersion"] = str(next(self._versions))
        old = self.objects.get(key)
        if change is Change.DELETED:
            del self.objects[key]
        else:
            self.objects[key] = obj
        for resource, namespace, labels, fields, queue in self._watchers:
            concerned = resource == key[0] and namespace in (None, key[1]) and _is(obj, fields)
            if concerned and (event := _seen(change, old, obj, labels)):
                queue.put_nowait(event)
        return deepcopy(obj)


def merged(target: Any, patch: Any) -> Any:  # noqa: ANN401  (any JSON value)
    """Apply a JSON merge patch and return a new value (RFC 7386)."""
    if not isinstance(patch, Mapping):
        return deepcopy(patch)
    result = deepcopy(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Write the merge patch that names all of `after` and removes the rest of `before`."""
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            patch[name] = _difference(old, value)
        else:
            patch[name] = deepcopy(value)
    return patch


def _said(key: _Key) -> str:
    resource, _, name = key
    kind = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    return f'{kind} "{name}"'


def _seen(change: Change, old: Object | None, new: Object, labels: str) -> Event | None:
    """Say what a watch by labels tells: what ceases to match is deleted, as it last was."""
    now, before = _has(new, labels), old is not None and _has(old, labels)
    if not now and not before:
        return None
    if now and change is not Change.DELETED:
        return Event(Change.MODIFIED if before else Change.ADDED, deepcopy(new))
    last = deepcopy(old if old is not None and not now else new)
    last["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"]
    return Event(Change.DELETED, last)


def _has(obj: Object, labels: str) -> bool:
    found = obj["metadata"].get("labels") or {}
    requirements = re.split(r",(?![^(]*\))", labels) if labels else ()
    return all(_meets(found, requirement) for requirement in requirements)


def _meets(labels: Mapping[str, str], requirement: str) -> bool:
    """Judge one of `a`, `!a`, `a=b`, `a==b`, `a!=b`, `a in (b, c)`, `a notin (b, c)`."""
    if words := re.fullmatch(r"(\S+) (in|notin) \((.*)\)", requirement):
        among = labels.get(words[1]) in [value.strip() for value in words[3].split(",")]
        return among == (words[2] == "in")
    if words := re.fullmatch(r"([^!=]+)(!=|==?)(.*)", requirement):
        return (labels.get(words[1]) == words[3]) == (words[2] != "!=")
    return (requirement.removeprefix("!") in labels) != requirement.startswith("!")


def _is(obj: Object, fields: str) -> bool:
    for requirement in fields.split(",") if fields else ():
        path, _, value = requirement.partition("=")
        found: Any = obj
        for name in path.split("."):
            found = found.get(name, "") if isinstance(found, dict) else ""
        if str(found) != value.removeprefix("="):
            return False
    return True
