"""The Kubernetes API as controllers and agents use it: one port, several servers behind it."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from squall.errors import SquallError

Object = dict[str, Any]
"""One Kubernetes object as decoded JSON: apiVersion, kind, metadata, spec, status."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind as the API serves it."""

    group: str
    """Empty for the core group."""
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`group/version`, or the bare version of the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


POD = Resource("", "v1", "Pod", "pods")
NAMESPACE = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
NODE = Resource("", "v1", "Node", "nodes", namespaced=False)
EVENT = Resource("", "v1", "Event", "events")
SERVICE = Resource("", "v1", "Service", "services")
ENDPOINT_SLICE = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
LEASE = Resource("coordination.k8s.io", "v1", "Lease", "leases")
CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps")
SECRET = Resource("", "v1", "Secret", "secrets")
NODE_FAULT = Resource("squall.dev", "v1alpha1", "NodeFault", "nodefaults")
HALT = Resource("squall.dev", "v1alpha1", "Halt", "halts", namespaced=False)
WORKLOAD = Resource("squall.dev", "v1alpha1", "Workload", "workloads")


class ApiError(SquallError):
    """The API refused; `message` is its own sentence, `details` those of its Status."""

    def __init__(
        self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details = details or {}


class NotFound(ApiError):
    """404: no such object, or no such kind."""


class Conflict(ApiError):
    """409: somebody else wrote first; read again and decide again."""


class AlreadyExists(ApiError):
    """409: create found the name taken."""


class Unreachable(ApiError):
    """The API did not answer (code 0); whether a write arrived is unknown."""


class Change(StrEnum):
    """What a watch reports; the first three are the wire's own words."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    SYNCED = "SYNCED"
    """The first full list has been reported, or reported again after a break; no object."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch."""

    change: Change
    object: Object
    """The object after the change; the last known one when DELETED; empty when SYNCED."""


class Cluster(Protocol):
    """Reads and writes objects; every method may raise `ApiError`."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Read one object."""

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
    ) -> list[Object]:
        """Read all objects that match; `namespace` None means every namespace."""

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
    ) -> AsyncGenerator[Event]:
        """Follow objects for ever: all that are there, SYNCED, then every change.

        One that matches no more is told as deleted, as it was when it did not match any more.

        Survives a lost connection, a restarted server and an expired version: it lists again,
        reports what differs (deletions too), then SYNCED again. Raises only for what will not
        get better, such as a kind that is not served. Close it with `aclose`.
        """

    async def create(self, resource: Resource, obj: Object) -> Object:
        """Store a new object; its metadata names the namespace."""

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any],
        *,
        subresource: str = "",
    ) -> Object:
        """Merge-patch an object (RFC 7386); a `metadata.resourceVersion` in it must be current.

        Args:
            resource: the kind.
            namespace: its namespace, or None for a cluster-scoped kind.
            name: its name.
            patch: what to change; None removes a field, lists are replaced.
            subresource: `status` where only the status may change.
        """

    async def apply(self, resource: Resource, obj: Object, *, manager: str) -> Object:
        """Bring an object to what one manager wants of it (server-side apply); create it if needed.

        Fields that the manager named before and no longer names go; fields of others stay, unless
        it names them: then it takes them over. What changes nothing keeps the version.

        Args:
            resource: the kind.
            obj: the fields wanted; its metadata names the object and its namespace.
            manager: who wants them.
        """

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str = "",
        grace_seconds: int | None = None,
    ) -> None:
        """Ask for deletion; an object with finalizers stays until they are gone.

        A `uid` that no longer fits raises `Conflict`, a missing object `NotFound`.
        """
