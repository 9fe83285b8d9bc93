"""Which clusters are there, and whose they are: one file for each, written under one lock."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from testbed.cluster.layout import RUN, Layout
from testbed.cluster.processes import Process

SUBNETS = 250


@dataclass(frozen=True, slots=True)
class Record:
    """One cluster that was begun and not removed."""

    layout: Layout
    owner: Process | None
    """Whoever starts it or is to vanish with it; `None`: it stays until somebody removes it."""

    @property
    def abandoned(self) -> bool:
        """Say whether its owner died without removing it."""
        return self.owner is not None and not self.owner.alive


@contextmanager
def lock() -> Iterator[None]:
    """Keep every other run from beginning or removing a cluster meanwhile."""
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN.parent / "testbed.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def begin(name: str, size: int) -> Record:
    """Take a free subnet and note the cluster as this process's; call it under the lock."""
    taken = {record.layout.index for record in everything()}
    index = next(number for number in range(SUBNETS) if number not in taken)
    record = Record(Layout(name, index, size), Process.of(os.getpid()))
    record.layout.folder.mkdir(parents=True)
    _write(record)
    return record


def leave(record: Record) -> Record:
    """Let a cluster stay when this process ends."""
    left = replace(record, owner=None)
    _write(left)
    return left


def _write(record: Record) -> None:
    content = {
        "index": record.layout.index,
        "size": record.layout.size,
        "owner": None if record.owner is None else asdict(record.owner),
    }
    _file(record.layout.name).write_text(json.dumps(content))


def read(name: str) -> Record | None:
    """Read what is noted about a cluster."""
    with suppress(OSError):
        noted = json.loads(_file(name).read_text())
        owner = None if noted["owner"] is None else Process(**noted["owner"])
        return Record(Layout(name, noted["index"], noted["size"]), owner)
    return None


def everything() -> list[Record]:
    """List all clusters of this machine."""
    names = sorted(each.name for each in RUN.iterdir()) if RUN.is_dir() else []
    return [record for name in names if (record := read(name)) is not None]


def _file(name: str) -> Path:
    return RUN / name / "record.json"
