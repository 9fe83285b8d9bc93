"""Processes of this host: which container they belong to, whether they still are who they were."""

import asyncio
import os
import re
import signal
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from squall.errors import Unsupported

PROC = Path("/proc")

# A path component that names a container: 64 digits, the runtime's prefix before it, and systemd's
# suffix behind it. `:` separates where a runtime took systemd's notation for a path.
_COMPONENT = re.compile(r"(?:^|[/:])(?:([a-z][a-z-]*?)-)?([0-9a-f]{64})(?:\.scope)?(?=[/:]|$)")

_RUNTIMES = {
    "docker": "docker",
    "libpod": "podman",
    "crio": "cri-o",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "squall": "squall",
}
_PARENTS = (
    (re.compile(r"(?:^|/)squall-[0-9a-f]+/"), "squall"),
    (re.compile(r"(?:^|/)docker/"), "docker"),
    (re.compile(r"libpod"), "podman"),
)
# How the kubelet names the cgroup of a pod: by its uid or, of a static one, by the hash of its
# file. systemd's slices have no hyphens.
_POD = re.compile(r"(?:^|[/-])pod([0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})(?=[/.:]|$)")
_UNKNOWN = "containerd"  # bare digits below kubepods or a namespace of containerd's own


@dataclass(frozen=True, slots=True)
class Membership:
    """The innermost container that a process is in."""

    container: str
    """64 hexadecimal digits."""
    runtime: str


@dataclass(frozen=True, slots=True)
class Init:
    """The first process of a container."""

    pid: int
    started: int
    """Clock ticks after boot."""
    runtime: str


def membership(cgroup: str) -> Membership | None:
    """Find the container in the lines of /proc/PID/cgroup.

    The monitors of Podman and CRI-O (`libpod-conmon-…`) sit beside their container, not in it.
    Of containers within containers the innermost counts, in whichever hierarchy it is named.

    Source: cgroups(7); the paths of runtimes stand in the tests.
    """
    deepest: Membership | None = None
    depth = 0
    for line in cgroup.splitlines():
        path = line.split(":", 2)[-1]
        found = [m for m in _COMPONENT.finditer(path) if "conmon" not in (m[1] or "")]
        if len(found) > depth:
            depth = len(found)
            prefix, digits = found[-1][1], found[-1][2]
            deepest = Membership(digits, _runtime(prefix, path[: found[-1].end()]))
    return deepest


def pods(cgroup: str) -> frozenset[str]:
    """Name every pod that the lines of /proc/PID/cgroup say a process is in, by uid."""
    return frozenset(found.replace("_", "-") for found in _POD.findall(cgroup))


def _runtime(prefix: str | None, path: str) -> str:
    if prefix in _RUNTIMES:
        return _RUNTIMES[prefix]
    return next((name for pattern, name in _PARENTS if pattern.search(path)), _UNKNOWN)


def started(pid: int, proc: Path = PROC) -> int | None:
    """Read when a process started, in clock ticks after boot; None: there is no such process."""
    stat = _stat(proc / str(pid))
    return stat[1] if stat else None


def inits(proc: Path = PROC) -> Mapping[str, Init]:
    """Look through all processes once, and find the first process of every container.

    It is the oldest of those whose parent is outside: commands that were started in a running
    container have a parent outside too.
    """
    inside = {pid: found for pid, text in _cgroups(proc) if (found := membership(text))}
    first: dict[str, tuple[int, int, str]] = {}
    for pid, found in inside.items():
        stat = _stat(proc / str(pid))
        if stat is None:
            continue
        parent, ticks = stat
        beside = inside.get(parent)
        if beside is not None and beside.container == found.container:
            continue
        candidate = (ticks, pid, found.runtime)
        first[found.container] = min(first.get(found.container, candidate), candidate)
    return {id_: Init(pid, ticks, runtime) for id_, (ticks, pid, runtime) in first.items()}


def _cgroups(proc: Path) -> Iterator[tuple[int, str]]:
    with os.scandir(proc) as entries:
        pids = [entry.name for entry in entries if entry.name.isdigit()]
    for pid in pids:
        # Plain os calls: a pass over all processes is what every injection waits for.
        try:
            opened = os.open(f"{proc}/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            yield int(pid), os.read(opened, 16384).decode(errors="replace")
        except OSError:
            continue
        finally:
            os.close(opened)


def _stat(process: Path) -> tuple[int, int] | None:
    """Read parent and start time; proc_pid_stat(5), fields 4 and 22."""
    try:
        text = (process / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(") ")[2].split()
    return (int(fields[1]), int(fields[19])) if fields else None


class Processes:
    """Finds containers by `/proc/*/cgroup` alone, so that every runtime works.

    Args:
        proc: where to look.
        of_kubelet: are pods what a kubelet takes for them? Else somebody made them up.
    """

    def __init__(self, proc: Path = PROC, *, of_kubelet: bool = False) -> None:
        self._proc, self._of_kubelet = proc, of_kubelet

    def in_pod(self, pid: int, uids: Collection[str]) -> bool:
        """May a process be one of a pod with one of these uids? The kernel says whose it is.

        Where its cgroup names no pod, as with kubelets that make none for pods, nothing is known.
        """
        if not self._of_kubelet:
            return True
        try:
            cgroup = (self._proc / str(pid) / "cgroup").read_text(errors="replace")
        except OSError:
            return False
        named = pods(cgroup)
        return not named or not named.isdisjoint(uids)

    async def resolve(self, container_ids: Collection[str]) -> Mapping[str, tuple[int, int]]:
        """Find the init process of containers, all in one pass.

        Args:
            container_ids: 64 hexadecimal digits each, without the runtime's prefix.

        Returns:
            (pid, start time in clock ticks) by container id; what does not run is absent.
        """
        found = await asyncio.to_thread(inits, self._proc)
        return {id_: (found[id_].pid, found[id_].started) for id_ in container_ids if id_ in found}


def send(pid: int, ticks: int, number: int) -> bool:
    """Send a signal to this very process; False when it has ended.

    Raises:
        Unsupported: it belongs to somebody else, and we may not.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # After the handle is open the number can no longer change its owner.
        if started(pid) != ticks:
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    except PermissionError as refused:
        raise Unsupported(f"process {pid} may not be signalled; grant CAP_KILL") from refused
    finally:
        os.close(handle)
    return True


async def gone(pid: int, ticks: int) -> None:
    """Wait until this very process has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ends = asyncio.get_running_loop(), asyncio.Event()
    try:
        if started(pid) != ticks:
            return
        loop.add_reader(handle, ends.set)
        await ends.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
