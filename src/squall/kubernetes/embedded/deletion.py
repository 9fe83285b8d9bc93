"""Deletion: finalizers, grace of Pods, what hangs on an owner, and whole namespaces."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from squall.api.cluster import NAMESPACE, POD, Change, Object, Resource
from squall.kubernetes.embedded.kinds import Kinds
from squall.kubernetes.embedded.refusals import conflict, not_found, qualified
from squall.kubernetes.embedded.store import Place, Store

FOREGROUND = "foregroundDeletion"
"""Finalizer that keeps an owner until what it blocks for is gone."""


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How a client wants a deletion to be done."""

    uid: str = ""
    """Delete only this incarnation."""
    version: str = ""
    """Delete only this resourceVersion."""
    grace_seconds: int | None = None
    """For Pods on a node: how long their containers may take to end; 0 deletes at once."""
    policy: str = "Background"
    """Background, Foreground or Orphan."""
    dry_run: bool = False


class Deletion:
    """Removes objects from a store, and everything that goes with them, in one transaction."""

    def __init__(self, store: Store, kinds: Kinds, now: Callable[[], datetime]) -> None:
        self._store, self._kinds, self._now = store, kinds, now

    def delete(
        self, resource: Resource, place: Place, options: DeleteOptions
    ) -> tuple[Object, bool]:
        """Ask for deletion.

        Returns:
            The object, and whether it is gone already.

        Raises:
            NotFound: it is not there.
            Conflict: a precondition does not hold.
        """
        with self._store.transaction(keep=not options.dry_run):
            obj = self._store.get(place)
            if obj is None:
                raise not_found(resource, place.name)
            _check_preconditions(resource, obj, options)
            return self._begin(place, obj, options)

    def remove(self, place: Place, obj: Object) -> None:
        """Take an object out of the store, then whatever hung on it."""
        gone = deque([(place, obj)])
        while gone:  # not recursive: chains of owners may be long
            place, obj = gone.popleft()
            before = self._store.get(place)
            if before is None:
                continue
            self._store.write(place, Change.DELETED, obj, before)
            metadata = obj["metadata"]
            for dependent in self._store.owned_by(metadata["uid"]):
                gone += self._release(dependent, metadata["uid"])
            for owner in metadata.get("ownerReferences", ()):
                gone += self._finish_owner(owner, metadata.get("namespace", ""))
            gone += self._finish_namespace(metadata.get("namespace"))

    def collect_if_orphaned(self, place: Place, obj: Object) -> None:
        """Delete a new object whose owners have all gone while it was made."""
        owners = obj["metadata"].get("ownerReferences")
        if owners and not any(self._store.exists(owner["uid"]) for owner in owners):
            self._begin(place, obj, DeleteOptions())

    def _begin(self, place: Place, obj: Object, options: DeleteOptions) -> tuple[Object, bool]:
        uid = obj["metadata"]["uid"]
        finalizers = list(obj["metadata"].get("finalizers", ()))
        dependents = self._store.owned_by(uid)
        if options.policy == "Orphan":
            for dependent in dependents:
                self._drop_owner(dependent, uid)
        elif options.policy == "Foreground" and dependents and FOREGROUND not in finalizers:
            finalizers.append(FOREGROUND)
        grace = _grace_seconds(obj, options.grace_seconds)
        is_namespace = place.kind == qualified(NAMESPACE)
        if not (finalizers or grace or is_namespace):
            self.remove(place, obj)
            return obj, True
        obj = self._mark(place, obj, finalizers, grace)
        if options.policy == "Foreground":
            for dependent in dependents:
                self._begin_if_there(dependent, options.policy)
        if is_namespace:
            self._empty(place.name)
        return obj, self._store.get(place) is None

    def _mark(self, place: Place, obj: Object, finalizers: list[str], grace: int) -> Object:
        """Write down that an object is being deleted."""
        was = obj["metadata"]
        metadata: dict[str, Any] = {**was}
        if "deletionTimestamp" not in was or grace < was.get("deletionGracePeriodSeconds", 0):
            ends = self._now() + timedelta(seconds=grace)
            metadata["deletionTimestamp"] = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
            metadata["deletionGracePeriodSeconds"] = grace
            if "generation" in was and "deletionTimestamp" not in was:
                metadata["generation"] = was["generation"] + 1
        if finalizers:
            metadata["finalizers"] = finalizers
        new = {**obj, "metadata": metadata}
        if place.kind == qualified(NAMESPACE):
            new["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        if new == obj:
            return obj
        return self._store.write(place, Change.MODIFIED, new, obj)

    def _empty(self, namespace: str) -> None:
        for inside in self._store.inside(namespace):
            self._begin_if_there(inside, "Background")
        for place, obj in self._finish_namespace(namespace):
            self.remove(place, obj)

    def _begin_if_there(self, place: Place, policy: str) -> None:
        obj = self._store.get(place)
        if obj is not None:
            self._begin(place, obj, DeleteOptions(policy=policy))

    def _release(self, place: Place, owner: str) -> list[tuple[Place, Object]]:
        """Let go of an owner that is no more; gives the object when it goes too."""
        obj = self._store.get(place)
        if obj is None:
            return []
        others = [o for o in obj["metadata"].get("ownerReferences", ()) if o["uid"] != owner]
        if any(self._store.exists(other["uid"]) for other in others):
            self._drop_owner(place, owner)
            return []
        if obj["metadata"].get("finalizers") or _grace_seconds(obj, None):
            self._begin(place, obj, DeleteOptions())
            return []
        return [(place, obj)]

    def _drop_owner(self, place: Place, owner: str) -> None:
        obj = self._store.get(place)
        if obj is None:
            return
        metadata = {**obj["metadata"]}
        left = [o for o in metadata.pop("ownerReferences", ()) if o["uid"] != owner]
        if left:
            metadata["ownerReferences"] = left
        self._store.write(place, Change.MODIFIED, {**obj, "metadata": metadata}, obj)

    def _finish_owner(self, owner: dict[str, Any], namespace: str) -> list[tuple[Place, Object]]:
        """Let an owner go that waited in the foreground for its last dependent."""
        if self._store.owned_by(owner["uid"]):
            return []
        for kind in self._kinds:
            resource = kind.resource
            if (resource.kind, resource.api_version) != (owner["kind"], owner["apiVersion"]):
                continue
            where = namespace if resource.namespaced else ""
            place = Place(qualified(resource), where, owner["name"])
            obj = self._store.get(place)
            if obj is None or obj["metadata"]["uid"] != owner["uid"]:
                continue
            finalizers = obj["metadata"].get("finalizers", [])
            if FOREGROUND in finalizers:
                left = [name for name in finalizers if name != FOREGROUND]
                new = {**obj, "metadata": {**obj["metadata"], "finalizers": left}}
                if not left:
                    del new["metadata"]["finalizers"]
                    return [(place, new)]
                self._store.write(place, Change.MODIFIED, new, obj)
        return []

    def _finish_namespace(self, namespace: str | None) -> list[tuple[Place, Object]]:
        """Let a namespace go that is being deleted and empty."""
        if not namespace:
            return []
        place = Place(qualified(NAMESPACE), "", namespace)
        obj = self._store.get(place)
        if obj is None or "deletionTimestamp" not in obj["metadata"]:
            return []
        if obj["metadata"].get("finalizers") or self._store.inside(namespace):
            return []
        return [(place, obj)]


def _check_preconditions(resource: Resource, obj: Object, options: DeleteOptions) -> None:
    metadata = obj["metadata"]
    for what, wanted, found in (
        ("UID", options.uid, metadata["uid"]),
        ("ResourceVersion", options.version, metadata["resourceVersion"]),
    ):
        if wanted and wanted != found:
            why = (
                f"the {what} in the precondition ({wanted}) does not match the {what} in record "
                f"({found}). The object might have been deleted and then recreated"
            )
            raise conflict(resource, metadata["name"], why)


def _grace_seconds(obj: Object, asked: int | None) -> int:
    """Say how long a deletion waits for a node: only Pods that are on one."""
    spec = obj.get("spec") or {}
    if (obj["kind"], obj["apiVersion"]) != (POD.kind, POD.api_version):
        return 0
    if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in (
        "Succeeded",
        "Failed",
    ):
        return 0
    if asked is None:
        asked = spec.get("terminationGracePeriodSeconds", 30)
    return max(asked, 0)
