"""Objects and the log of their changes in SQLite; a resourceVersion is a row of that log.

One connection, used from one thread. A transaction never spans an await, so writes are serial
and readers see whole transactions. `synchronous=FULL` in WAL mode syncs the log at every commit:
what was acknowledged outlives a killed process and a lost power supply.
"""

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from squall.api.cluster import Change, Object
from squall.kubernetes.embedded.refusals import cannot_be_stored, too_large

KEPT_CHANGES = 4096
"""How many changes a watch may lie behind before it gets 410."""
COMPACTED_AT_ONCE = 256
"""Rows that are forgotten together: cheaper than one at every write."""
LARGEST_OBJECT_BYTES = 1_500_000
"""What etcd accepts; an object that does not fit there is refused here too."""

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT, namespace TEXT, name TEXT, uid TEXT, body BLOB,
    PRIMARY KEY (kind, namespace, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS objects_by_namespace ON objects (namespace);
CREATE INDEX IF NOT EXISTS objects_by_uid ON objects (uid);
CREATE TABLE IF NOT EXISTS owners (
    owner TEXT, kind TEXT, namespace TEXT, name TEXT,
    PRIMARY KEY (owner, kind, namespace, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS owners_by_dependent ON owners (kind, namespace, name);
CREATE TABLE IF NOT EXISTS changes (
    version INTEGER PRIMARY KEY, kind TEXT, change TEXT, body BLOB, before BLOB);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the log; objects stay encoded until somebody looks into them."""

    version: int
    change: Change
    body: bytes
    """The object after the change; the last one, with the version of its end, when DELETED."""
    before: bytes | None
    """The object before the change; None when ADDED."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one object is kept."""

    kind: str
    """`plural.group`, or the bare plural of the core group."""
    namespace: str
    """Empty for cluster-scoped kinds."""
    name: str


class Store:
    """Keeps objects; every write goes through `transaction`.

    Args:
        path: the database file; made when it is not there.
        kept_changes: how long the log is.

    Raises:
        sqlite3.Error: the file cannot be opened, or is not a database.
    """

    def __init__(self, path: Path | str, *, kept_changes: int = KEPT_CHANGES) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript(_SCHEMA)
        self._kept = kept_changes
        query = "SELECT min(version), max(version) FROM changes"
        oldest, newest = self._database.execute(query).fetchone()
        self._version: int = newest or 1  # 0 means "any" to clients
        self._forgotten_before: int = oldest - 1 if oldest else 0
        self._forgotten: dict[str, int] = {}
        self._depth = 0
        self._touched: set[str] = set()
        self._wakes: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    @property
    def version(self) -> int:
        """The resourceVersion of the newest change."""
        return self._version

    def forgotten(self, kind: str) -> int:
        """Give the newest version of a kind whose change is no longer in the log.

        A watch may start from it, not before. After a restart all kinds share one answer.
        """
        return self._forgotten.get(kind, self._forgotten_before)

    def close(self) -> None:
        """Close the file; nothing is lost without it."""
        self._database.close()

    @contextmanager
    def transaction(self, *, keep: bool = True) -> Iterator[None]:
        """Store all writes of the block, or none: on an exception, or when not `keep`.

        A transaction inside another belongs to the outer one.

        Raises:
            ApiError: 500, nothing can be written now, as on a disk that is full.
        """
        if self._depth:
            yield
            return
        version, self._depth = self._version, 1
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT" if keep else "ROLLBACK")
        except BaseException as failure:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            keep = False
            if isinstance(failure, sqlite3.OperationalError):
                raise cannot_be_stored(str(failure)) from failure
            raise
        finally:
            self._depth = 0
            touched, self._touched = self._touched, set()
            if not keep:
                self._version = version
        if keep:
            self._wake(touched)

    def get(self, place: Place) -> Object | None:
        """Read one object."""
        row = self._database.execute(
            "SELECT body FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
            (place.kind, place.namespace, place.name),
        ).fetchone()
        return orjson.loads(row[0]) if row else None

    def bodies(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        after: tuple[str, str] = ("", ""),
        limit: int = -1,
    ) -> list[bytes]:
        """Read encoded objects in the order of namespace and name.

        Args:
            kind: `plural.group`.
            namespace: one, or None for all.
            after: namespace and name of the last object of the page before.
            limit: at most so many; -1 for all.
        """
        where, given = "kind = ? AND (namespace, name) > (?, ?)", [kind, *after]
        if namespace is not None:
            where, given = f"{where} AND namespace = ?", [*given, namespace]
        query = f"SELECT body FROM objects WHERE {where} ORDER BY namespace, name LIMIT ?"  # noqa: S608  (fixed text)
        return [row[0] for row in self._database.execute(query, (*given, limit))]

    def count(self, kind: str, namespace: str | None, *, after: tuple[str, str]) -> int:
        """Count the objects that follow `after`."""
        return int(
            self._database.execute(
                "SELECT count(*) FROM objects WHERE kind = ? AND (namespace, name) > (?, ?)"
                " AND (? IS NULL OR namespace = ?)",
                (kind, *after, namespace, namespace),
            ).fetchone()[0]
        )

    def owned_by(self, uid: str) -> list[Place]:
        """Find the objects with an ownerReference to `uid`."""
        query = "SELECT kind, namespace, name FROM owners WHERE owner = ?"
        return [Place(*row) for row in self._database.execute(query, (uid,))]

    def inside(self, namespace: str) -> list[Place]:
        """Find all objects of a namespace, of whatever kind."""
        query = "SELECT kind, namespace, name FROM objects WHERE namespace = ?"
        return [Place(*row) for row in self._database.execute(query, (namespace,))]

    def exists(self, uid: str) -> bool:
        """Say whether some object has this uid."""
        row = self._database.execute("SELECT 1 FROM objects WHERE uid = ? LIMIT 1", (uid,))
        return row.fetchone() is not None

    def since(self, kind: str, version: int, limit: int = 500) -> list[Entry]:
        """Read the log of one kind after `version`, oldest first, at most `limit` rows."""
        rows = self._database.execute(
            "SELECT version, change, body, before FROM changes"
            " WHERE version > ? AND kind = ? ORDER BY version LIMIT ?",
            (version, kind, limit),
        )
        return [Entry(row[0], Change(row[1]), row[2], row[3]) for row in rows]

    def write(self, place: Place, change: Change, obj: Object, before: Object | None) -> Object:
        """Store one change, inside a transaction; gives `obj` its resourceVersion.

        Raises:
            ApiError: 413, the object is larger than etcd would take.
        """
        version = self._version + 1
        metadata = obj["metadata"]
        metadata["resourceVersion"] = str(version)
        body = orjson.dumps(obj)
        if len(body) > LARGEST_OBJECT_BYTES:
            raise too_large(len(body), LARGEST_OBJECT_BYTES)
        where = (place.kind, place.namespace, place.name)
        execute = self._database.execute
        execute(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?)",
            (version, place.kind, change, body, orjson.dumps(before) if before else None),
        )
        if change is Change.DELETED:
            execute("DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?", where)
        else:
            execute(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)",
                (*where, metadata["uid"], body),
            )
        self._note_owners(where, metadata.get("ownerReferences"), before, change)
        self._version = version
        if version % COMPACTED_AT_ONCE == 0:
            self._compact(version - self._kept)
        self._touched.add(place.kind)
        return obj

    @contextmanager
    def woken(self, kind: str) -> Iterator[asyncio.Event]:
        """Give an event that is set after every transaction that changed objects of `kind`."""
        event = asyncio.Event()
        self._wakes[kind].add(event)
        try:
            yield event
        finally:
            self._wakes[kind].discard(event)

    def _compact(self, version: int) -> None:
        """Forget changes up to `version`; a transaction that fails still has them."""
        newest = "SELECT kind, max(version) FROM changes WHERE version <= ? GROUP BY kind"
        self._forgotten |= dict(self._database.execute(newest, (version,)).fetchall())
        self._database.execute("DELETE FROM changes WHERE version <= ?", (version,))

    def _note_owners(
        self,
        where: tuple[str, str, str],
        owners: Sequence[dict[str, Any]] | None,
        before: Object | None,
        change: Change,
    ) -> None:
        if before and before["metadata"].get("ownerReferences"):
            self._database.execute(
                "DELETE FROM owners WHERE kind = ? AND namespace = ? AND name = ?", where
            )
        if owners and change is not Change.DELETED:
            self._database.executemany(
                "INSERT OR IGNORE INTO owners VALUES (?, ?, ?, ?)",
                [(owner.get("uid", ""), *where) for owner in owners],
            )

    def _wake(self, kinds: set[str]) -> None:
        for kind in kinds:
            for event in self._wakes[kind]:
                event.set()
