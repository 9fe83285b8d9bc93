"""Which clusters are there, and whose they are: one file for each, written under one lock."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from testbed.cluster.layout import RUN, Layout
from testbed.cluster.processes import Process

SUBNETS = 250


@dataclass(frozen=True, slots=True)
class Record:
    """One cluster that was begun and not removed."""

    layout: Layout
    owner: Process | None
    """It is to vanish with this process; `None`: it stays until somebody takes it down."""

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


def begin(name: str, size: int, *, owned: bool) -> Record:
    """Take a free subnet and note the cluster; call it under the lock."""
    taken = {record.layout.index for record in everything()}
    index = next(number for number in range(SUBNETS) if number not in taken)
    owner = Process.of(os.getpid()) if owned else None
    record = Record(Layout(name, index, size), owner)
    record.layout.folder.mkdir(parents=True)
    content = {
        "index": index,
        "size": size,
        "owner": None if owner is None else {"pid": owner.pid, "started": owner.started},
    }
    _file(name).write_text(json.dumps(content))
    return record


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
