"""The agent's journal: what it is about to do, on disk before it does it."""

import fcntl
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from squall.errors import TryAgain
from squall.node.notes import LANE, LaneKey, Notes, written
from squall.sealing import new_key
from squall.telemetry import logger

_SCHEMA = """
CREATE TABLE IF NOT EXISTS boot (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fault (
    uid TEXT PRIMARY KEY, object TEXT NOT NULL, deadline TEXT, deadline_boot REAL,
    interrupted INTEGER, reason TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS touched (
    kind TEXT, target TEXT, pod_uid TEXT, container TEXT,
    container_id TEXT NOT NULL, pid INTEGER NOT NULL, started INTEGER NOT NULL,
    host_network INTEGER NOT NULL, sources TEXT NOT NULL,
    PRIMARY KEY (kind, target, pod_uid, container));
CREATE TABLE IF NOT EXISTS memory (
    kind TEXT, target TEXT, pod_uid TEXT, container TEXT, key TEXT, value BLOB NOT NULL,
    PRIMARY KEY (kind, target, pod_uid, container, key));
CREATE TABLE IF NOT EXISTS sealing (key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS strike (
    fault TEXT, mark TEXT, finished INTEGER NOT NULL DEFAULT 0, outcome TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (fault, mark));
"""
_BROKEN = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
"""What is no journal; whatever else is wrong, as with a full disk, may pass."""


@dataclass(frozen=True, slots=True)
class Touched:
    """A target that may carry something of ours."""

    key: LaneKey
    container_id: str
    pid: int
    started: int
    host_network: bool
    sources: tuple[str, ...]
    """Which faults were being done to it, oldest first."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A NodeFault as the agent last acted on it."""

    object: Mapping[str, Any]
    """As the API gave it: metadata and spec."""
    deadline: datetime | None = None
    deadline_boot: float | None = None
    """The deadline in seconds of boot time, fixed when it was first seen."""
    interrupted: int | None = None
    """The generation that the agent took back by itself."""
    reason: str = ""

    @property
    def uid(self) -> str:
        """Of the NodeFault."""
        return str(self.object["metadata"]["uid"])


class Journal:
    """A database that survives `kill -9` and loss of power.

    One process holds it at a time; the kernel lets go of it when that process ends. A file that
    is no journal is moved aside, since nothing can be read from it, and a new one is begun.

    Args:
        path: file of the database; its folder is made.
        boot_id: which boot this is (/proc/sys/kernel/random/boot_id).

    Whatever writes raises TryAgain while nothing can be written, as on a disk that is full.

    Raises:
        TryAgain: another process holds it, or it cannot be opened now.
    """

    def __init__(self, path: Path, boot_id: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.lost: Path | None = None
        """Where the file that could not be read is now: what it named, nobody knows any more."""
        with ExitStack() as unwind:
            self._lock = unwind.enter_context(path.with_suffix(".lock").open("w"))
            try:
                # A record lock, not flock: children that we fork must not keep it alive.
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as held:
                raise TryAgain(f"{path} is held by a running agent; stop it first") from held
            self._db = unwind.enter_context(closing(self._opened_or_begun_anew()))
            self._boots(boot_id)
            self.sealing_key = self._sealing_key()
            """Opens what Secrets are sealed in, also in NodeFaults that are noted here."""
            unwind.pop_all()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        self._lock.close()

    @property
    def empty(self) -> bool:
        """Is nothing written down that anybody could need?"""
        tables = ("fault", "touched", "memory", "strike")
        found = " UNION ALL ".join(f"SELECT 1 FROM {table}" for table in tables)  # noqa: S608
        return self._db.execute(found).fetchone() is None

    # Faults -------------------------------------------------------------------------------

    def faults(self) -> Sequence[Noted]:
        """Read every NodeFault that was acted on and not forgotten."""
        rows = self._db.execute(
            "SELECT object, deadline, deadline_boot, interrupted, reason FROM fault"
        )
        return [Noted(json.loads(row[0]), _moment(row[1]), row[2], row[3], row[4]) for row in rows]

    def note(self, faults: Iterable[Noted]) -> None:
        """Write faults down, before anything is done for them."""
        rows = [
            (
                fault.uid,
                json.dumps(fault.object),
                fault.deadline.isoformat() if fault.deadline else None,
                fault.deadline_boot,
                fault.interrupted,
                fault.reason,
            )
            for fault in faults
        ]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO fault VALUES (?, ?, ?, ?, ?, ?)", rows)

    def drop(self, uid: str) -> None:
        """Forget a NodeFault that is gone from the API, and its strikes."""
        with self._transaction(lasting=False):
            self._db.execute("DELETE FROM fault WHERE uid = ?", (uid,))
            self._db.execute("DELETE FROM strike WHERE fault = ?", (uid,))

    # Targets ------------------------------------------------------------------------------

    def touched(self) -> Sequence[Touched]:
        """Read every target that may carry something of ours."""
        rows = self._db.execute("SELECT * FROM touched")
        return [
            Touched(
                LaneKey(*row[:4]), row[4], row[5], row[6], bool(row[7]), tuple(json.loads(row[8]))
            )
            for row in rows
        ]

    def intend(self, targets: Iterable[Touched]) -> None:
        """Write down what is about to be done to which targets; one write for all of them."""
        rows = [
            (*t.key, t.container_id, t.pid, t.started, t.host_network, json.dumps(t.sources))
            for t in targets
        ]
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO touched VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )

    def restored(self, key: LaneKey) -> None:
        """Forget a target that carries nothing of ours any more, and its notes."""
        with self._transaction(lasting=False):
            self._db.execute(f"DELETE FROM touched WHERE {LANE}", key)  # noqa: S608 (constant)
            self._db.execute(f"DELETE FROM memory WHERE {LANE}", key)  # noqa: S608 (constant)

    def memory(self, key: LaneKey) -> "Notes":
        """Give an injector its notes on one target."""
        return Notes(self._db, key)

    # Strikes ------------------------------------------------------------------------------

    def strike(self, fault: str, mark: str) -> bool:
        """Mark a strike as begun; False when it was begun before, whatever came of it."""
        with written():
            begun = self._db.execute(
                "INSERT OR IGNORE INTO strike (fault, mark) VALUES (?, ?)", (fault, mark)
            )
        return begun.rowcount == 1

    def begun(self, fault: str, mark: str) -> bool:
        """Was this strike begun?"""
        row = self._db.execute("SELECT 1 FROM strike WHERE fault = ? AND mark = ?", (fault, mark))
        return row.fetchone() is not None

    def struck(self, fault: str, mark: str, outcome: str = "") -> None:
        """Mark a strike as finished; `outcome` says why it did nothing, if so."""
        with written():
            self._db.execute(
                "UPDATE strike SET finished = 1, outcome = ? WHERE fault = ? AND mark = ?",
                (outcome, fault, mark),
            )

    def outcome(self, fault: str, mark: str) -> str | None:
        """Read what came of a strike; None: it was begun and never finished, or never begun."""
        row = self._db.execute(
            "SELECT outcome FROM strike WHERE fault = ? AND mark = ? AND finished", (fault, mark)
        ).fetchone()
        return None if row is None else str(row[0])

    def _opened_or_begun_anew(self) -> sqlite3.Connection:
        try:
            return self._opened()
        except sqlite3.DatabaseError as broken:
            if broken.sqlite_errorcode not in _BROKEN:
                raise TryAgain(f"{self._path} cannot be opened: {broken}") from broken
            aside = self._path.with_suffix(".broken")
            logger(__name__).error("%s is no journal (%s), now %s", self._path, broken, aside)
            self._path.replace(aside)
            self.lost = aside
            for rest in ("-wal", "-shm"):
                self._path.with_name(self._path.name + rest).unlink(missing_ok=True)
            return self._opened()

    def _opened(self) -> sqlite3.Connection:
        self._path.touch(0o600)
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(_SCHEMA)
        except sqlite3.DatabaseError:
            db.close()
            raise
        return db

    def _sealing_key(self) -> bytes:
        if (row := self._db.execute("SELECT key FROM sealing").fetchone()) is not None:
            return bytes(row[0])
        key = new_key()
        with self._transaction():
            self._db.execute("INSERT INTO sealing VALUES (?)", (key,))
        return key

    def _boots(self, boot_id: str) -> None:
        """Note which boot this is. After another one, deadlines in boot time mean nothing.

        Targets and notes stay: a reboot takes back what was done to the kernel, but not what was
        done through an API.
        """
        if self._db.execute("SELECT id FROM boot").fetchone() == (boot_id,):
            return
        with self._transaction():
            self._db.execute("DELETE FROM boot")
            self._db.execute("INSERT INTO boot VALUES (?)", (boot_id,))
            self._db.execute("UPDATE fault SET deadline_boot = NULL")

    @contextmanager
    def _transaction(self, *, lasting: bool = True) -> Iterator[None]:
        """Change all or nothing; what need not last may be forgotten by a loss of power.

        It is not by `kill -9`, and waits for no disk. Source: sqlite.org/pragma.html, synchronous.
        """
        with written():
            if not lasting:
                self._db.execute("PRAGMA synchronous = NORMAL")
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have ended it already
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._db.execute("PRAGMA synchronous = FULL")


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
