"""Reading, creating and changing objects: what loopback and HTTP both stand on.

Everything here is synchronous and ends in one transaction of the store.
"""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

from squall.api.cluster import NAMESPACE, Change, Object, Resource
from squall.api.served import Cause, ServedKind
from squall.kubernetes.embedded.admission import WriteOptions, admit
from squall.kubernetes.embedded.deletion import Deletion
from squall.kubernetes.embedded.kinds import Kinds, is_core
from squall.kubernetes.embedded.managed_fields import record_update
from squall.kubernetes.embedded.metadata import SET_BY_SERVER, check_envelope
from squall.kubernetes.embedded.refusals import (
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    not_found,
    qualified,
)
from squall.kubernetes.embedded.store import Place, Store

NAMESPACES = ("default", "kube-system", "squall")
"""They are there from the first start; the last is where NodeFaults live."""

Edit = Callable[[Object], Object]
"""(a copy of the stored object) -> the object as the client wants it."""

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: no words by chance


def now_utc() -> datetime:
    """Read the wall clock."""
    return datetime.now(UTC)


def place_of(resource: Resource, namespace: str | None, name: str) -> Place:
    """Say where an object is kept."""
    return Place(qualified(resource), (namespace or "") if resource.namespaced else "", name)


class Objects:
    """The verbs of the API over one store; makes the first namespaces if they are missing."""

    def __init__(self, store: Store, kinds: Kinds, now: Callable[[], datetime] = now_utc) -> None:
        self.store, self.kinds = store, kinds
        self._now = now
        self.deletion = Deletion(store, kinds, now)
        namespaces = kinds.of(NAMESPACE)
        for name in NAMESPACES:
            if store.get(place_of(NAMESPACE, None, name)) is None:
                self.create(namespaces, None, {"metadata": {"name": name}}, WriteOptions("squall"))

    def get(self, kind: ServedKind, namespace: str | None, name: str) -> Object:
        """Read one object.

        Raises:
            NotFound: it is not there.
        """
        obj = self.store.get(place_of(kind.resource, namespace, name))
        if obj is None:
            raise not_found(kind.resource, name)
        return obj

    def create(
        self, kind: ServedKind, namespace: str | None, obj: Object, options: WriteOptions
    ) -> Object:
        """Store a new object.

        Args:
            kind: its kind.
            namespace: the one of the request; None for a cluster-scoped kind.
            obj: what was sent; may be changed.
            options: how to write.

        Raises:
            ApiError: it is malformed, breaks a rule, or the name is taken.
        """
        resource = kind.resource
        unknown = check_envelope(resource, obj)
        metadata = obj["metadata"]
        _settle_namespace(resource, namespace, obj)
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        for name in SET_BY_SERVER:
            metadata.pop(name, None)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + _suffix()
        metadata |= {"uid": str(uuid4()), "creationTimestamp": self._stamp()}
        if not is_core(resource):
            metadata["generation"] = 1
        if kind.status:
            obj.pop("status", None)
        obj = admit(kind, obj, None, options, unknown=unknown)
        metadata = obj["metadata"]
        if not any(e.get("operation") == "Apply" for e in metadata.get("managedFields", ())):
            record_update(None, obj, options.manager, self._now(), core=is_core(resource))
        place = place_of(resource, metadata.get("namespace"), metadata["name"])
        with self.store.transaction(keep=not options.dry_run):
            self._admit_into_namespace(resource, obj)
            if self.store.get(place) is not None:
                raise already_exists(resource, place.name)
            self.store.write(place, Change.ADDED, obj, None)
            self.deletion.collect_if_orphaned(place, obj)
        if options.dry_run:
            del metadata["resourceVersion"]
        return obj

    def change(
        self,
        kind: ServedKind,
        namespace: str | None,
        name: str,
        edit: Edit,
        options: WriteOptions,
        *,
        part: str = "",
    ) -> Object:
        """Change a stored object; one that stays the same keeps its resourceVersion.

        Args:
            kind: its kind.
            namespace: its namespace; None for a cluster-scoped kind.
            name: its name.
            edit: makes the new object from a copy of the stored one.
            options: how to write.
            part: `status` for the subresource; nothing else changes then.

        Raises:
            ApiError: it is not there, the result is malformed or breaks a rule, or the
                resourceVersion or uid in the result is not the stored one.
        """
        place = place_of(kind.resource, namespace, name)
        with self.store.transaction(keep=not options.dry_run):
            old = self.get(kind, namespace, name)
            new = edit(self.get(kind, namespace, name))
            unknown = check_envelope(kind.resource, new)
            applied = new["metadata"].pop("managedFields", None)
            _check_preconditions(kind.resource, old, new)
            _keep_what_is_fixed(kind, old, new, part)
            new = admit(kind, new, old, options, unknown=unknown, part=part)
            self._manage(kind, old, new, options, applied, part)
            if new == old:
                return old
            _raise_generation(kind, old, new)
            metadata = new["metadata"]
            if "deletionTimestamp" in metadata and not held(new):
                self.deletion.remove(place, new)
            else:
                self.store.write(place, Change.MODIFIED, new, old)
        if options.dry_run:
            metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
        return new

    def _manage(
        self,
        kind: ServedKind,
        old: Object,
        new: Object,
        options: WriteOptions,
        sent: object,
        part: str,
    ) -> None:
        """Set managedFields: those of a server-side apply as it computed them, else ours."""
        if isinstance(sent, AppliedFields):
            new["metadata"]["managedFields"] = list(sent)
            return
        if sent is not None:  # clients may rewrite them: to start afresh, to change a name
            old = {**old, "metadata": {**old["metadata"], "managedFields": sent}}
        core = is_core(kind.resource)
        record_update(old, new, options.manager, self._now(), core=core, part=part)

    def _admit_into_namespace(self, resource: Resource, obj: Object) -> None:
        if not resource.namespaced:
            return
        metadata = obj["metadata"]
        name = metadata["namespace"]
        namespace = self.store.get(place_of(NAMESPACE, None, name))
        if namespace is None:
            raise not_found(NAMESPACE, name)
        if "deletionTimestamp" in namespace["metadata"]:
            why = f"unable to create new content in namespace {name} because it is being terminated"
            raise forbidden(resource, metadata["name"], why)

    def _stamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%SZ")


class AppliedFields(list[dict[str, object]]):
    """managedFields as a server-side apply computed them, to be stored as they are."""


def held(obj: Object) -> bool:
    """Say whether finalizers keep the object."""
    spec = obj.get("spec")
    inner = spec.get("finalizers") if obj["kind"] == "Namespace" and spec else None
    return bool(obj["metadata"].get("finalizers") or inner)


def _settle_namespace(resource: Resource, namespace: str | None, obj: Object) -> None:
    metadata = obj["metadata"]
    if not resource.namespaced:
        metadata.pop("namespace", None)
        return
    if not namespace:
        raise bad_request(f"an object of kind {resource.kind} needs a namespace")
    if metadata.setdefault("namespace", namespace) != namespace:
        raise bad_request(
            f"the namespace of the provided object does not match the namespace sent on the "
            f"request ({metadata['namespace']} != {namespace})"
        )


def _check_preconditions(resource: Resource, old: Object, new: Object) -> None:
    was, wanted = old["metadata"], new["metadata"]
    name = was["name"]
    if wanted.get("name", name) != name or wanted.get("namespace", "") not in (
        "",
        was.get("namespace", ""),
    ):
        raise bad_request(
            f"the name of the object ({wanted.get('name')}) does not match the name on the URL "
            f"({name})"
        )
    if wanted.get("uid") and wanted["uid"] != was["uid"]:
        why = (
            f"Precondition failed: UID in precondition: {wanted['uid']}, "
            f"UID in object meta: {was['uid']}"
        )
        raise conflict(resource, name, why)
    if wanted.get("resourceVersion") and wanted["resourceVersion"] != was["resourceVersion"]:
        raise conflict(resource, name)


def _keep_what_is_fixed(kind: ServedKind, old: Object, new: Object, part: str) -> None:
    """Take back what a client may not change, in place."""
    if part:
        wanted = new.get(part)
        new.clear()
        new |= {**old, "metadata": {**old["metadata"]}}
        new["metadata"].pop("managedFields", None)
        new.pop(part, None)
        if wanted is not None:
            new[part] = wanted
        return
    if kind.status:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    was, metadata = old["metadata"], new["metadata"]
    for name in (*SET_BY_SERVER, "name", "namespace", "resourceVersion"):
        metadata.pop(name, None)
        if name in was:
            metadata[name] = was[name]
    added = set(metadata.get("finalizers") or ()) - set(was.get("finalizers") or ())
    if added and "deletionTimestamp" in was:
        named = ", ".join(f'"{name}"' for name in sorted(added))
        message = (
            "Forbidden: no new finalizers can be added if the object is being deleted, "
            f"found new finalizers []string{{{named}}}"
        )
        cause = Cause("metadata.finalizers", "FieldValueForbidden", message)
        raise invalid(kind.resource, was["name"], [cause])


def _raise_generation(kind: ServedKind, old: Object, new: Object) -> None:
    """Count a new generation where what the user wants changed."""
    status = ("status",) if kind.status else ()
    outside = ("metadata", *status)
    changed = any(
        old.get(field) != new.get(field) for field in {*old, *new} if field not in outside
    )
    if changed and "generation" in old["metadata"]:
        new["metadata"]["generation"] = old["metadata"]["generation"] + 1


def _suffix() -> str:
    return "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(5))
