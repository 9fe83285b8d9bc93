"""Processes of containers: killed by a handle, stopped by the freezer of their cgroup."""

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from squall.errors import TargetGone, TryAgain, Unsupported
from squall.injection.world.target import Target
from squall.linux import cgroups
from squall.linux.processes import PROC, send, started

MARK = "trusted.squall.frozen"
"""Extended attribute of a cgroup that we froze: it tells our freeze from somebody else's, needs no
memory of ours, and is gone with the cgroup."""
_FREEZE_SECONDS = 5.0
"""Processes in uninterruptible sleep hold a freeze up for as long as they sleep."""


@dataclass(frozen=True, slots=True)
class _Freezer:
    """The means to stop one cgroup, and the words it takes and gives."""

    directory: Path
    switch: str
    stop: str
    go: str

    def asked(self) -> bool:
        """Did somebody ask for a freeze of this very cgroup?"""
        name = "freezer.self_freezing" if self.switch == "freezer.state" else self.switch
        return (self.directory / name).read_text().strip() == "1"

    def stands(self) -> bool:
        """Do all its processes stand still?"""
        if self.switch == "freezer.state":
            return (self.directory / self.switch).read_text().strip() == "FROZEN"
        return "frozen 1" in (self.directory / "cgroup.events").read_text().splitlines()


class LinuxContainers:
    """Containers of this host, whatever runtime made them."""

    async def kill(self, target: Target) -> None:
        """Send SIGKILL to the container's init; `TargetGone` when it has ended before."""
        if not send(target.pid, target.started, signal.SIGKILL):
            raise TargetGone(f"{target.id}: process {target.pid} has ended")

    async def alive(self, target: Target) -> bool:
        """Compare the start time: the number alone may belong to somebody else by now."""
        return started(target.pid) == target.started and _state(target.pid) not in "ZX"

    async def freeze(self, target: Target) -> None:
        """Stop every process of the pod; `TryAgain` while some of them cannot be stopped yet."""
        await asyncio.to_thread(_freeze, target)

    async def thaw(self, target: Target) -> None:
        """Let go on what we stopped."""
        await asyncio.to_thread(_thaw, target)

    async def frozen(self, target: Target) -> bool:
        """Read our mark and the kernel's word."""
        return await asyncio.to_thread(_frozen, target)


def _freeze(target: Target) -> None:
    directories = cgroups.of(target)
    freezer = _freezer(target, directories)
    directory = _of_pod(target, next(iter(directories.values())))
    if os.getpid() in cgroups.members(freezer.directory if freezer else directory):
        raise Unsupported(f"{target.id}: this agent itself runs in that pod; it could not thaw it")
    if freezer is None:
        _Signals(target, directories).stop()
        return
    if not freezer.asked():
        # Before the freeze: whoever finds the mark may thaw, whether we got that far or not.
        os.setxattr(freezer.directory, MARK, b"ours")
        (freezer.directory / freezer.switch).write_text(freezer.stop)
    elif _mark(freezer.directory) is None:
        # It stood still before us, so it will not be us who lets it go on.
        os.setxattr(freezer.directory, MARK, b"foreign")
    until = time.monotonic() + _FREEZE_SECONDS
    while not freezer.stands():
        if time.monotonic() > until:
            raise TryAgain(f"{target.id}: a process does not stand still yet; it waits for a disk?")
        time.sleep(0.001)  # nothing tells on v1; on v2 it is a matter of microseconds


def _thaw(target: Target) -> None:
    directories = cgroups.of(target)
    freezer = _freezer(target, directories)
    if freezer is None:
        _Signals(target, directories).go_on()
        return
    mark = _mark(freezer.directory)
    if mark is None:
        return
    if mark == b"ours":
        (freezer.directory / freezer.switch).write_text(freezer.go)
    os.removexattr(freezer.directory, MARK)


def _frozen(target: Target) -> bool:
    directories = cgroups.of(target)
    freezer = _freezer(target, directories)
    if freezer is None:
        return _Signals(target, directories).stands()
    return _mark(freezer.directory) is not None and freezer.stands()


def _freezer(target: Target, directories: Mapping[str, Path]) -> _Freezer | None:
    """Choose the means: v1 where the container is in that hierarchy, else v2, else none."""
    old, new = directories.get("freezer"), directories.get(cgroups.UNIFIED)
    if old is not None:
        return _Freezer(_of_pod(target, old), "freezer.state", "FROZEN", "THAWED")
    if new is not None and (new / "cgroup.freeze").exists():
        return _Freezer(_of_pod(target, new), "cgroup.freeze", "1", "0")
    return None


def _of_pod(target: Target, directory: Path) -> Path:
    """Find the cgroup around all containers of a pod; where there is none, the container's own.

    A kubelet names it after the pod's uid, with `_` for `-` where systemd makes it.
    """
    uids = {target.pod_uid, target.pod_uid.replace("-", "_")} - {""}
    for parent in directory.parents:
        if any(parent.name.removesuffix(".slice").endswith(f"pod{uid}") for uid in uids):
            return parent
    return directory


class _Signals:
    """SIGSTOP to every process, where there is no freezer; who was stopped before stays so."""

    def __init__(self, target: Target, directories: Mapping[str, Path]) -> None:
        self._target = target
        self._directory = _of_pod(target, next(iter(directories.values())))

    def stop(self) -> None:
        """Note each process before it is stopped, until no new one appears."""
        until = time.monotonic() + _FREEZE_SECONDS
        noted = self._noted()
        while going := self._going():
            noted |= going
            text = " ".join(f"{pid}:{ticks}" for pid, ticks in noted.items())
            os.setxattr(self._directory, MARK, text.encode())
            _send(going, signal.SIGSTOP)
            if time.monotonic() > until:
                raise TryAgain(f"{self._target.id}: a process does not stand still yet")
            time.sleep(0.001)  # a signal acts when the process runs next

    def go_on(self) -> None:
        """Continue those that were noted, and drop the note."""
        _send(self._noted(), signal.SIGCONT)
        with suppress(OSError):
            os.removexattr(self._directory, MARK)

    def stands(self) -> bool:
        """Did we stop somebody, and does everybody stand still?"""
        return bool(self._noted()) and not self._going()

    def _going(self) -> dict[int, int]:
        """Start times of the processes that are neither stopped nor dead, by number."""
        found = {pid: started(pid) for pid in cgroups.members(self._directory)}
        return {
            pid: ticks
            for pid, ticks in found.items()
            if ticks is not None and _state(pid) not in "TZX"
        }

    def _noted(self) -> dict[int, int]:
        names = (_mark(self._directory) or b"").decode().split()
        return {int(pid): int(ticks) for pid, _, ticks in (name.partition(":") for name in names)}


def _send(processes: Mapping[int, int], number: int) -> None:
    for pid, ticks in processes.items():
        send(pid, ticks, number)


def _mark(directory: Path) -> bytes | None:
    try:
        return os.getxattr(directory, MARK)
    except OSError:
        return None


def _state(pid: int) -> str:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(") ")[2][:1] or "X"
    except OSError:
        return "X"
