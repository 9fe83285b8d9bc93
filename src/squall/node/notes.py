"""What injectors write down of their targets, in the journal of their agent."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from squall.errors import TryAgain

LANE = "kind = ? AND target = ? AND pod_uid = ? AND container = ?"
"""Finds the rows of a `LaneKey`."""


class LaneKey(NamedTuple):
    """What is converged as one: all faults of a kind on one incarnation of a target."""

    kind: str
    target: str
    """Record id."""
    pod_uid: str
    container: str
    """Container id where the target is one container; empty where it is the pod, whose network
    outlives its containers."""


class Notes:
    """What an injector keeps about one target; on disk before `keep` returns."""

    def __init__(self, db: sqlite3.Connection, key: LaneKey) -> None:
        self._db, self._key = db, key

    def keep(self, key: str, value: bytes) -> bytes:
        """Store `value` under `key` unless something is there; return what is there."""
        kept = self.recall(key)
        if kept is None:
            with written():
                self._db.execute(
                    "INSERT INTO memory VALUES (?, ?, ?, ?, ?, ?)", (*self._key, key, value)
                )
            return value
        return kept

    def recall(self, key: str) -> bytes | None:
        """Read what `keep` stored, or None."""
        row = self._db.execute(
            f"SELECT value FROM memory WHERE {LANE} AND key = ?",  # noqa: S608 (constant)
            (*self._key, key),
        ).fetchone()
        return None if row is None else bytes(row[0])


@contextmanager
def written() -> Iterator[None]:
    """Turn what a disk does not take into what to do about it."""
    try:
        yield
    except sqlite3.OperationalError as failed:
        raise TryAgain(f"the journal cannot be written: {failed}; see to its disk") from failed
