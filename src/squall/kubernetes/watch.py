"""List and watch for ever: what `Cluster.watch` promises, over any server that may go away."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import orjson

from squall.api.cluster import ApiError, Change, Event, Object

FIRST_DELAY_SECONDS = 0.05
LONGEST_DELAY_SECONDS = 10.0
STEADY_SECONDS = 5.0
"""A stream that lived this long was no failure, whatever ended it."""

HOPELESS = frozenset({400, 401, 403, 404, 405, 406, 415, 422})
"""Answers that asking again does not change."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects that match, all or one page of them, and the moment they were read at."""

    items: list[Object]
    version: str
    """The list's resourceVersion: where a watch goes on."""
    first: bool = True
    """False where it goes on with the listing before it."""


class Source(Protocol):
    """One collection of a server; both methods may raise `ApiError`."""

    def pages(self) -> AsyncGenerator[Listing]:
        """Read everything, a page at a time; may begin again."""

    def changes(self, version: str) -> AsyncGenerator[tuple[str, Object]]:
        """Stream the wire's (type, object) after `version`, bookmarks too; ends when it ends."""


async def follow(
    source: Source,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    known: "Known | None" = None,
) -> AsyncGenerator[Event]:
    """Report what is there, SYNCED, then every change; after a break only what differs.

    A stream that the server ends in good order is resumed where it stopped. Any other end (a lost
    connection, an expired version) makes the collection be listed again and compared.

    Args:
        source: the collection.
        sleep: how to wait between attempts, in seconds.
        known: where to keep what was reported; empty at the start.

    Raises:
        ApiError: asking again would not help.
    """
    known = Known() if known is None else known
    version, failures = "", 0
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        try:
            if not version:
                listed = ""
                async with aclosing(source.pages()) as pages:
                    async for page in pages:
                        listed = page.version
                        for event in known.listed(page):
                            yield event
                for event in known.gone():
                    yield event
                yield Event(Change.SYNCED, {})
                version = listed
            async with aclosing(source.changes(version)) as changes:
                async for change, obj in changes:
                    version, failures = obj["metadata"]["resourceVersion"], 0
                    for event in known.note(change, obj):
                        yield event
        except ApiError as error:
            if error.code in HOPELESS:
                raise
            version = ""
        failures = 0 if loop.time() - began > STEADY_SECONDS else failures + 1
        await sleep(_delay(failures))


def _delay(failures: int) -> float:
    """Double from one failure to the next, scattered so that agents do not return in step."""
    longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(failures, 16))
    return random.uniform(longest / 2, longest)  # noqa: S311  (scatter, no secret)


class Known:
    """What has been reported so far, so that differences can be told.

    Objects are kept packed: thousands of pods as Python values take ten times as much.
    """

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], _Packed] = {}
        self._listed: set[tuple[str, str]] = set()

    def last(self, namespace: str, name: str) -> Object | None:
        """Give an object as it was last reported; None where there is none."""
        packed = self._objects.get((namespace, name))
        return None if packed is None else orjson.loads(packed.json)

    def listed(self, page: Listing) -> list[Event]:
        """Take a page of a full list; return what a watch would have reported of it meanwhile."""
        if page.first:
            self._listed = set()
        self._listed.update(map(_key, page.items))
        return [event for obj in page.items for event in self.note(Change.MODIFIED, obj)]

    def gone(self) -> list[Event]:
        """Forget what the full list did not have."""
        missing = [key for key in self._objects if key not in self._listed]
        self._listed = set()
        return [self._forget(key) for key in missing]

    def note(self, change: str, obj: Object) -> list[Event]:
        """Take one line of a watch; empty when it says nothing new."""
        if change not in (Change.ADDED, Change.MODIFIED, Change.DELETED):
            return []  # a bookmark: nothing but a version
        key = _key(obj)
        old = self._objects.get(key)
        if change == Change.DELETED:
            self._objects.pop(key, None)
            return [Event(Change.DELETED, obj)] if old else []
        new = _Packed(_uid(obj), _version(obj), orjson.dumps(obj))
        if old is None or old.uid == new.uid:
            self._objects[key] = new
            if old is None:
                return [Event(Change.ADDED, obj)]
            return [Event(Change.MODIFIED, obj)] if old.version != new.version else []
        gone = self._forget(key)
        self._objects[key] = new
        return [gone, Event(Change.ADDED, obj)]

    def _forget(self, key: tuple[str, str]) -> Event:
        return Event(Change.DELETED, orjson.loads(self._objects.pop(key).json))


class _Packed(NamedTuple):
    """One object, as small as it can be found again."""

    uid: str
    version: str
    json: bytes


def _key(obj: Object) -> tuple[str, str]:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _uid(obj: Object) -> str:
    return str(obj["metadata"].get("uid", ""))


def _version(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])
