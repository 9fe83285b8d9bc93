"""What trials of this host are made with, and made on: gone with the trial, whatever ends it."""

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from squall.injection.world.target import Target
from squall.linux import namespaces

PREFIX = "squall-trial-"
_INSIDE = {"--net": "network", "--mount": "mount"}
"""Namespaces, by the option of unshare(1) that makes one."""


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder; those of trials that were killed go first.

    Whoever uses one holds a lock on it, which the kernel takes from the dead.
    """
    sweep()
    path, lock = _made()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def sweep() -> None:
    """Remove the folders of trials that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = _locked(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _made() -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = _locked(path)
        if lock is None:
            continue  # somebody who sweeps has come between
        if path.exists():
            return path, lock
        os.close(lock)


def _locked(path: Path) -> int | None:
    """Lock a folder; None while somebody else has, or where it is gone or not ours to see."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


@asynccontextmanager
async def process(*unshared: str) -> AsyncIterator[Target]:
    """Have a process wait in namespaces of its own; it ends with us, even if we are killed.

    Args:
        unshared: options of unshare(1); the first is the namespace that matters.

    Raises:
        PermissionError: we may not make such namespaces.
    """
    waiting = await asyncio.create_subprocess_exec(
        *("unshare", *unshared, "--", "cat"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    if waiting.stdin is None or waiting.stdout is None or waiting.stderr is None:
        raise AssertionError("all are pipes")
    try:
        waiting.stdin.write(b"\n")
        if not await waiting.stdout.readline():  # else an echo: it has got its namespace and runs
            said = (await waiting.stderr.read()).decode().strip()
            what = f"no {_INSIDE[unshared[0]]} namespace can be made ({said})"
            raise PermissionError(f"{what}; grant CAP_SYS_ADMIN")
        yield Target("trial", "trial", "", waiting.pid, namespaces.started(waiting.pid))
    finally:
        with suppress(ProcessLookupError):
            waiting.kill()
        await waiting.wait()
