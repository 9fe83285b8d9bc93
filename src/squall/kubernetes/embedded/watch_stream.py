"""Watches over HTTP: one JSON line per event, until the client or its time is gone."""

import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson

from squall.api.cluster import ApiError, Change, Event, Object
from squall.api.served import ServedKind
from squall.kubernetes.embedded.exchange import Query
from squall.kubernetes.embedded.refusals import bad_request, qualified, status
from squall.kubernetes.embedded.store import Entry, Store
from squall.kubernetes.embedded.tables import partial, table
from squall.kubernetes.embedded.watching import View, follow

BOOKMARK_SECONDS = 60.0
_SHORTEST_SECONDS = 1800
"""A watch without a limit ends after once to twice this time, as in a Kubernetes API server."""


class WatchStream:
    """One watch.

    Args:
        store: where to look.
        kind: what is watched.
        view: which of its objects.
        query: from when, for how long, with bookmarks or without.
        form: Table, PartialObjectMetadata or empty.

    Raises:
        ApiError: 400, a parameter cannot be read.
    """

    def __init__(self, store: Store, kind: ServedKind, view: View, query: Query, form: str) -> None:
        self._store, self._kind, self._view, self._form = store, kind, view, form
        self._key = qualified(kind.resource)
        self._since = query.number("resourceVersion") or 0
        self._bookmarks = query.flag("allowWatchBookmarks")
        self._initial = query.flag("sendInitialEvents")
        self._include = query.text("includeObject")
        limit = query.number("timeoutSeconds")
        self.seconds = limit or _SHORTEST_SECONDS + secrets.randbelow(_SHORTEST_SECONDS)
        self._headings_sent = False
        if self._initial and query.text("resourceVersionMatch") != "NotOlderThan":
            raise bad_request("sendInitialEvents needs resourceVersionMatch=NotOlderThan")

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield encoded events, for ever or until an ERROR; to be cut off after `seconds`."""
        try:
            version = self._since
            if self._initial or not version:
                version = self._store.version
                yield self._everything(version)
            changes = follow(self._store, self._key, version, tick_seconds=BOOKMARK_SECONDS)
            async with aclosing(changes):
                async for entry in changes:
                    if entry is not None:
                        line = self._line(entry)
                    else:
                        line = self._bookmark(self._store.version) if self._bookmarks else b""
                    if line:
                        yield line
        except ApiError as refused:
            yield orjson.dumps({"type": "ERROR", "object": status(refused)}) + b"\n"

    def _everything(self, version: int) -> bytes:
        """Encode what is there when the watch begins."""
        bodies = self._store.bodies(self._key, self._view.namespace)
        lines = [
            self._encoded(Event(Change.ADDED, obj))
            for body in bodies
            if self._view.shows(obj := orjson.loads(body))
        ]
        if self._initial and self._bookmarks:
            marked = {"k8s.io/initial-events-end": "true"}
            lines.append(self._bookmark(version, marked))
        return b"".join(lines)

    def _line(self, entry: Entry) -> bytes:
        event = self._view.of(entry)
        return self._encoded(event) if event else b""

    def _encoded(self, event: Event) -> bytes:
        obj = event.object
        if self._form == "Table":
            obj = self._row([obj], obj["metadata"]["resourceVersion"])
        elif self._form.startswith("PartialObjectMetadata"):
            obj = partial(obj)
        return orjson.dumps({"type": event.change, "object": obj}) + b"\n"

    def _bookmark(self, version: int, annotations: dict[str, str] | None = None) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if annotations:
            metadata["annotations"] = annotations
        resource = self._kind.resource
        obj: Object = {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "metadata": metadata,
        }
        if self._form == "Table":
            obj = self._row([], str(version))
        return orjson.dumps({"type": "BOOKMARK", "object": obj}) + b"\n"

    def _row(self, objects: list[Object], version: str) -> Object:
        first, self._headings_sent = not self._headings_sent, True
        return table(
            self._kind,
            objects,
            {"resourceVersion": version},
            include=self._include,
            with_headings=first,
        )
