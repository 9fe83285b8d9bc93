"""Following the log: what a watcher with a selector sees of each change."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import orjson

from squall.api.cluster import Change, Event, Object
from squall.kubernetes.embedded.refusals import too_old
from squall.kubernetes.embedded.selectors import Test
from squall.kubernetes.embedded.store import Entry, Store


@dataclass(frozen=True, slots=True)
class View:
    """The part of a kind's objects that somebody looks at."""

    namespace: str | None = None
    """None: all of them."""
    tests: tuple[Test, ...] = ()

    def shows(self, obj: Object) -> bool:
        """Say whether an object is in view."""
        return self.namespace in (None, obj["metadata"].get("namespace")) and all(
            test(obj) for test in self.tests
        )

    def of(self, entry: Entry) -> Event | None:
        """Turn a change into what this view sees of it; None where it sees nothing.

        An object that begins to match is ADDED, one that ceases to is DELETED as it last was.
        """
        obj: Object = orjson.loads(entry.body)
        before: Object | None = orjson.loads(entry.before) if entry.before else None
        saw = before is not None and self.shows(before)
        if entry.change is not Change.DELETED and self.shows(obj):
            return Event(Change.MODIFIED if saw else Change.ADDED, obj)
        if not saw or before is None:
            return None
        if entry.change is Change.DELETED:
            return Event(Change.DELETED, obj)
        before["metadata"]["resourceVersion"] = str(entry.version)
        return Event(Change.DELETED, before)


async def follow(
    store: Store, kind: str, version: int, *, tick_seconds: float | None = None
) -> AsyncGenerator[Entry | None]:
    """Yield every change of a kind after `version`, for ever.

    Reads the log rather than a queue: a slow watcher costs no memory, and learns that it is too
    slow when the log has moved on.

    Args:
        store: where to look.
        kind: its name in the store.
        version: the last change that is known.
        tick_seconds: yield None when all is told, and again each time nothing has come for so
            long; None: never.

    Raises:
        ApiError: 410, changes after `version` are no longer in the log, or `version` lies in the
            future: the store is not the one it came from.
    """
    caught_up = False
    with store.woken(kind) as wake:
        while True:
            wake.clear()
            if version < (forgotten := store.forgotten(kind)) or version > store.version:
                raise too_old(version, forgotten)
            entries = store.since(kind, version)
            for entry in entries:
                version = entry.version
                yield entry
            if entries:
                continue
            version = store.version  # what lies between is of other kinds
            if tick_seconds is not None and not caught_up:
                caught_up = True
                yield None
                continue
            try:
                async with asyncio.timeout(tick_seconds):
                    await wake.wait()
            except TimeoutError:
                yield None
