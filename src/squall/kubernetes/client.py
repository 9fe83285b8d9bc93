"""The port `Cluster` over HTTP: any Kubernetes API server, the embedded one too."""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import orjson

from squall.api.cluster import LEASE, POD, ApiError, Event, Object, Resource
from squall.kubernetes.connection import Connection, refusal
from squall.kubernetes.watch import Known, Listing, follow

REQUESTS_AT_ONCE = 20
"""Requests under way, watches not counted; more would only wait in the server, each behind a new
connection."""

LEASES_AT_ONCE = 4
"""Requests for Leases, beside all others: who leads must not lose that in a queue of its own."""

PAGE = 500
"""Objects in one answer of a list, as kubectl asks for."""

WATCH_SECONDS = 300
"""How long one watch request lasts at most before it is asked for anew."""

GRACE_SECONDS = 30
"""How much later than asked for a watch may end before the server counts as gone."""

EXPIRED = 410


class HttpCluster:
    """Reads and writes objects of the API server that a kubeconfig names."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._places = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._lease_places = asyncio.Semaphore(LEASES_AT_ONCE)
        self._pods_known: dict[str | None, Known] = {}

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Self:
        """Prepare connections to the current context of `path`; asks the server nothing yet.

        Raises:
            ApiError: the file names no server (code 0).
        """
        from squall.kubernetes.kubeconfig import load  # noqa: PLC0415  (3 MB that no pod needs)

        return cls(Connection(load(path)))

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Read one object."""
        async with self._place(resource):
            return await self._connection.send("GET", path_of(resource, namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
    ) -> list[Object]:
        """Read all objects that match, page by page."""
        collection = _Collection(self._connection, resource, namespace, labels, fields)
        items: list[Object] = []
        async for page in collection.pages():
            items = page.items if page.first else items + page.items
        return items

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
    ) -> AsyncGenerator[Event]:
        """Follow objects for ever; reconnects as the port says.

        The pods of one node are listed as the server has them at hand, as kubelets do: else it
        reads every pod from its store for each agent (6,000 for 60, measured), and a hundred
        agents drown it. The list may be a moment old; the watch that follows it is not.
        """
        version = "0" if resource == POD and fields else ""
        known = Known()
        if resource == POD and not labels and not fields:
            self._pods_known[namespace] = known
        return follow(
            _Collection(self._connection, resource, namespace, labels, fields, version),
            known=known,
        )

    def pod_last_seen(self, namespace: str, name: str) -> Object | None:
        """Give a pod as the newest watch of all pods last showed it, which costs no request.

        It may be outdated. None: nobody here watches pods, or they have not shown this one.
        """
        known = self._pods_known.get(namespace) or self._pods_known.get(None)
        return known.last(namespace, name) if known else None

    async def create(self, resource: Resource, obj: Object) -> Object:
        """Store a new object."""
        namespace = obj["metadata"].get("namespace")
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        async with self._place(resource):
            return await self._connection.send("POST", path_of(resource, namespace), body=body)

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
        path = path_of(resource, namespace, name, subresource)
        async with self._place(resource):
            return await self._connection.send(
                "PATCH", path, body=patch, content_type="application/merge-patch+json"
            )

    async def apply(self, resource: Resource, obj: Object, *, manager: str) -> Object:
        """Bring an object to what one manager wants of it; JSON is the YAML that is sent."""
        metadata = obj["metadata"]
        return await self._connection.send(
            "PATCH",
            path_of(resource, metadata.get("namespace"), metadata["name"]),
            query={"fieldManager": manager, "force": "true"},
            body={"apiVersion": resource.api_version, "kind": resource.kind, **obj},
            content_type="application/apply-patch+yaml",
        )

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
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        async with self._place(resource):
            await self._connection.send("DELETE", path_of(resource, namespace, name), body=options)

    def _place(self, resource: Resource) -> asyncio.Semaphore:
        return self._lease_places if resource == LEASE else self._places

    async def aclose(self) -> None:
        """Close every connection."""
        await self._connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def path_of(
    resource: Resource, namespace: str | None, name: str = "", subresource: str = ""
) -> str:
    """Say where the API serves a collection, an object or a part of one."""
    parts = ["apis", resource.group, resource.version] if resource.group else ["api", "v1"]
    if resource.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts += [part for part in (resource.plural, name, subresource) if part]
    return "/" + "/".join(quote(part, safe="") for part in parts)


class _Collection:
    """The objects of one kind that match, as a `Source` to follow."""

    def __init__(
        self,
        connection: Connection,
        resource: Resource,
        namespace: str | None,
        labels: str,
        fields: str,
        version: str = "",
    ) -> None:
        self._connection, self._resource, self._version = connection, resource, version
        self._path = path_of(resource, namespace)
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        self._query = {name: value for name, value in selectors.items() if value}

    async def pages(self) -> AsyncGenerator[Listing]:
        """Read page by page; a page that expired meanwhile makes it start again, in one piece."""
        paging = {"resourceVersion": self._version} if self._version else {"limit": str(PAGE)}
        try:
            async for page in self._pages(paging):
                yield page
        except ApiError as error:
            if error.code != EXPIRED:
                raise
            async for page in self._pages({}):
                yield page

    async def _pages(self, paging: dict[str, str]) -> AsyncGenerator[Listing]:
        first = True
        while True:
            page = await self._connection.send("GET", self._path, query=self._query | paging)
            items: list[Object] = page.get("items") or []
            for item in items:
                # Lists of built-in kinds do not repeat them in each item.
                item |= {"apiVersion": self._resource.api_version, "kind": self._resource.kind}
                _lighten(item)
            yield Listing(items, page["metadata"]["resourceVersion"], first)
            if not page["metadata"].get("continue"):
                return
            first = False
            paging = paging | {"continue": page["metadata"]["continue"]}

    async def changes(self, version: str) -> AsyncGenerator[tuple[str, Object]]:
        """Stream changes after `version` until the request has lasted long enough."""
        # Scattered, so that the watches of many agents do not all return at once.
        seconds = random.randint(WATCH_SECONDS // 2, WATCH_SECONDS)  # noqa: S311  (no secret)
        query = {
            **self._query,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        async for line in self._connection.lines(self._path, query, seconds + GRACE_SECONDS):
            event = orjson.loads(line)
            if event["type"] == "ERROR":
                raise refusal(event["object"])
            yield event["type"], _lighten(event["object"])


def _lighten(obj: Object) -> Object:
    """Leave out who wrote which field: half of many objects, and nobody here asks for it."""
    obj["metadata"].pop("managedFields", None)
    return obj
