"""Where a process stands in the cgroup hierarchies, and what they count and allow; cgroups(7)."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from squall.errors import TargetGone, Unsupported
from squall.injection.world.target import Target
from squall.linux.processes import PROC, started

UNIFIED = ""
"""Name of the v2 hierarchy among the controllers of v1, as /proc/PID/cgroup writes it."""
_NO_LIMIT = 2**60
"""v1 says "no limit" with the largest multiple of a page; nothing real is above an exabyte."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted hierarchy."""

    controllers: frozenset[str]
    """Those of v1; only `UNIFIED` for v2."""
    root: str
    """Which cgroup is seen at `point`; `/` unless only a part is mounted."""
    point: Path


def mounts(mountinfo: str) -> tuple[Mount, ...]:
    """Read where hierarchies are mounted.

    Args:
        mountinfo: content of /proc/PID/mountinfo; proc_pid_mountinfo(5).
    """
    found = []
    for line in mountinfo.splitlines():
        place, _, source = line.partition(" - ")
        words, (kind, _, options) = place.split(), source.split(" ", 2)
        if kind == "cgroup2":
            found.append(Mount(frozenset({UNIFIED}), words[3], Path(words[4])))
        elif kind == "cgroup":
            found.append(Mount(frozenset(options.split(",")), words[3], Path(words[4])))
    return tuple(found)


def directories(cgroup: str, mounted: tuple[Mount, ...]) -> Mapping[str, Path]:
    """Find the directory of each hierarchy that a process is in, by controller.

    Left out: what is not mounted, and the root of a hierarchy, since being there is being in none.

    Args:
        cgroup: content of /proc/PID/cgroup.
        mounted: where hierarchies are.
    """
    found: dict[str, Path] = {}
    for line in cgroup.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.removeprefix("name=").split(","):
            for mount in mounted:
                inside = _below(path, mount.root)
                if inside and (name in mount.controllers or f"name={name}" in mount.controllers):
                    found.setdefault(name, mount.point / inside)
    return found


def _below(path: str, root: str) -> str:
    if root == "/":
        return path.strip("/")
    return path.removeprefix(root).strip("/") if path.startswith(f"{root}/") else ""


@lru_cache(maxsize=1)
def _mounted() -> tuple[Mount, ...]:
    return mounts((PROC / "self/mountinfo").read_text())


def of(target: Target) -> Mapping[str, Path]:
    """Find the cgroups of a container, by controller; `UNIFIED` is v2.

    Only those that carry its id are its own: in other hierarchies it may share a cgroup with
    anybody, the agent included. Of nested ones inside the container, the outermost is given.

    Raises:
        TargetGone: its init process is no more.
        Unsupported: it has no cgroup of its own.
    """
    try:
        text = (PROC / str(target.pid) / "cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        text = ""
    # Read before it is checked: what was read belongs to the process that was meant.
    if not text or started(target.pid) != target.started:
        raise TargetGone(f"{target.id}: process {target.pid} has ended")
    found = directories(text, _mounted())
    own = {name: cut for name, path in found.items() if (cut := owned(path, target.container_id))}
    if not own:
        raise Unsupported(f"{target.id}: process {target.pid} is in no cgroup of its own")
    return own


def frozen(target: Target) -> bool:
    """Do its processes stand still because its cgroup, or one above it, is frozen?"""
    try:
        own = of(target)
    except (TargetGone, Unsupported):
        return False
    with suppress(OSError, KeyError):  # v1; where a kernel has both, only one has this controller
        if (own["freezer"] / "freezer.state").read_text().strip() != "THAWED":
            return True
    with suppress(OSError, KeyError):
        return "frozen 1" in (own[UNIFIED] / "cgroup.events").read_text().splitlines()
    return False


def owned(directory: Path, container_id: str) -> Path | None:
    """Cut a path off behind the part that names a container; None where no part does."""
    for path in (*reversed(directory.parents), directory):
        if container_id and container_id in path.name:
            return path
    return None


def members(directory: Path) -> tuple[int, ...]:
    """List the processes in a cgroup and below; those of other PID namespaces are left out."""
    pids: list[int] = []
    for path, _, _ in os.walk(directory):
        with suppress(OSError):
            pids += map(int, Path(path, "cgroup.procs").read_text().split())
    return tuple(pid for pid in pids if pid)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a target's cgroups count and allow; None: no controller counts it here."""

    cpu_seconds: float | None
    memory_bytes: int | None
    oom_kills: int
    cpu_limit: float
    """CPUs; of the host where there is no limit."""
    memory_limit: int
    """Bytes; of the host where there is no limit."""


def count(cgroups: Mapping[str, Path]) -> Counted:
    """Read the counters of one target, from v1, v2, or some of each."""
    unified = cgroups.get(UNIFIED)
    time = cgroups.get("cpuacct")
    memory = cgroups.get("memory")
    if time is not None:
        seconds: float | None = _number(time / "cpuacct.usage", 0) / 1e9
    else:
        seconds = None if unified is None else _of_table(unified, "cpu.stat", "usage_usec", 1e6)
    events = "memory.oom_control" if memory else "memory.events"
    kills = _of_table(memory or unified, events, "oom_kill", 1) or 0
    return Counted(
        cpu_seconds=seconds,
        memory_bytes=_memory(memory, unified),
        oom_kills=int(kills),
        cpu_limit=min([float(os.cpu_count() or 1), *_cpu_limits(cgroups.get("cpu"), unified)]),
        memory_limit=min([_host_memory(), *_memory_limits(memory, unified)]),
    )


def _memory(memory: Path | None, unified: Path | None) -> int | None:
    if memory is not None:
        used = _number(memory / "memory.usage_in_bytes", 0)
        droppable = _of_table(memory, "memory.stat", "total_inactive_file", 1) or 0
    elif unified is not None and (unified / "memory.current").exists():
        used = _number(unified / "memory.current", 0)
        droppable = _of_table(unified, "memory.stat", "inactive_file", 1) or 0
    else:
        return None
    return max(0, used - int(droppable))


def _cpu_limits(cpu: Path | None, unified: Path | None) -> Iterator[float]:
    """Every limit on the way up counts: pods have limits too."""
    for level in _up(cpu, "cpu.cfs_quota_us"):
        quota = _number(level / "cpu.cfs_quota_us", -1)
        if quota > 0:
            yield quota / _number(level / "cpu.cfs_period_us", 100_000)
    for level in _up(unified, "cpu.max"):
        words = _text(level / "cpu.max").split()
        if words and words[0] != "max":
            yield int(words[0]) / int(words[1])


def _memory_limits(memory: Path | None, unified: Path | None) -> Iterator[int]:
    for level in _up(memory, "memory.limit_in_bytes"):
        limit = _number(level / "memory.limit_in_bytes", _NO_LIMIT)
        if limit < _NO_LIMIT:
            yield limit
    for level in _up(unified, "memory.max"):
        text = _text(level / "memory.max").strip()
        if text.isdigit():
            yield int(text)


def _up(directory: Path | None, name: str) -> Iterator[Path]:
    while directory is not None and (directory / name).exists():
        yield directory
        directory = directory.parent


def _host_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_table(directory: Path | None, name: str, key: str, unit: float) -> float | None:
    """Read one number out of lines `key number`."""
    for line in _text(directory / name).splitlines() if directory else ():
        word, _, number = line.partition(" ")
        if word == key:
            return int(number) / unit
    return None


def _number(path: Path, otherwise: int) -> int:
    text = _text(path).strip()
    return int(text) if text.removeprefix("-").isdigit() else otherwise


def _text(path: Path) -> str:
    """Read a file of a cgroup; empty where there is none, also because the cgroup just ended."""
    try:
        return path.read_text()
    except OSError:
        return ""
