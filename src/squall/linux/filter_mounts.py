"""Mounts of our filter in the mount namespaces of targets, known by their mark."""

import asyncio
import os
import re
from collections.abc import Iterator

from squall.errors import TargetGone, TryAgain
from squall.injection.world.target import Target
from squall.linux.holder import program
from squall.linux.processes import PROC

KIND, MARK = "fuse.squall", "squall-files"
"""Type and source of every mount of ours."""

RESTORE_SECONDS = 20.0
"""For moving the open files of one target back; ten thousand take less than one."""

GUARDIAN_SECONDS, LOOK_SECONDS = 4.0, 0.05
"""For a guardian to take back what a dead filter has left, and how often to look."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


def paths(mountinfo: str) -> Iterator[str]:
    """Find where our filters are mounted, outer ones first.

    Args:
        mountinfo: content of /proc/PID/mountinfo; proc_pid_mountinfo(5).
    """
    for line in mountinfo.splitlines():
        place, _, source = line.partition(" - ")
        if source.split(" ")[:2] == [KIND, MARK]:
            yield _ESCAPED.sub(lambda found: chr(int(found[1], 8)), place.split(" ")[4])


def of(target: Target) -> frozenset[str]:
    """Find ours in the mount namespace of a target, by path.

    Raises:
        TargetGone: its process has ended.
    """
    try:
        octets = (PROC / str(target.pid) / "mountinfo").read_bytes()
    except (FileNotFoundError, ProcessLookupError, OSError) as gone:
        raise TargetGone(f"{target.id}: process {target.pid} has ended") from gone
    return frozenset(paths(os.fsdecode(octets)))


async def given_back(target: Target) -> None:
    """Make sure that nothing of ours is left: by its guardian, which sees a filter die, else by us.

    Raises:
        TargetGone: its process has ended.
        TryAgain: not all could be taken back.
    """
    for _ in range(int(GUARDIAN_SECONDS / LOOK_SECONDS)):
        if not of(target):
            return
        await asyncio.sleep(LOOK_SECONDS)
    await restore(target)


async def restore(target: Target) -> None:
    """Take back what a holder that died has left: open files first, then the mounts.

    Raises:
        TryAgain: not all could be taken back.
    """
    command = (program(), "files-restore", "--pid", str(target.pid))
    process = await asyncio.create_subprocess_exec(
        *command,
        "--started",
        str(target.started),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(RESTORE_SECONDS):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        why = f"its files were not given back in {RESTORE_SECONDS:g} s"
        raise TryAgain(f"{target.id}: {why}") from None
    if process.returncode:
        raise TryAgain(f"{target.id}: {said.decode(errors='replace').strip()}")
