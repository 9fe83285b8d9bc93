"""A container without a runtime: processes in cgroups of their own, and nothing else."""

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from squall.injection.world.target import Target
from squall.linux.cgroups import mounts
from squall.linux.processes import started
from squall.linux.sandbox_cgroups import SandboxCgroups, hierarchies

SPIN = ("sh", "-c", "while :; do :; done")
REST = ("sleep", "600")


@dataclass
class Cell:
    """Its cgroups, and its first process as a target."""

    cgroups: Sequence[Path]
    target: Target
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def limit_memory(self, limit_bytes: int) -> None:
        """Allow it so much memory, on v1 or v2."""
        self._write(("memory.limit_in_bytes", "memory.max"), str(limit_bytes))

    def limit_cpus(self, cpus: float) -> None:
        """Allow it so many processors, on v1 or v2; the period is 100 ms on both."""
        microseconds = int(cpus * 100_000)
        self._write(("cpu.cfs_quota_us", "cpu.max"), str(microseconds))

    def _write(self, names: Sequence[str], text: str) -> None:
        found = [path / name for path in self.cgroups for name in names if (path / name).exists()]
        found[0].write_text(text)

    def add(self, *command: str) -> int:
        """Run one more process in it."""
        process = subprocess.Popen(command)
        self.processes.append(process)
        for path in self.cgroups:
            (path / "cgroup.procs").write_text(str(process.pid))
        return process.pid


def roots(*controllers: str) -> tuple[Path, ...]:
    """Find hierarchies by controller; all that containers are in where none is named."""
    mountinfo = Path("/proc/self/mountinfo").read_text()
    if not controllers:
        return hierarchies(mountinfo)
    found = tuple(m.point for m in mounts(mountinfo) if m.controllers & set(controllers))
    return found or pytest.skip(f"no hierarchy with {controllers} is mounted here")


@contextmanager
def cell(*controllers: str, command: Sequence[str] = REST) -> Iterator[Cell]:
    """Make one, and end it with all its processes."""
    cgroups = SandboxCgroups(f"squall-{secrets.token_hex(4)}", roots(*controllers))
    made = Cell(cgroups.create(secrets.token_hex(32)), Target("d/web/app", "uid", "", 0, 0))
    # Other processes of this machine must not starve what is measured; where it would starve the
    # test itself, on a single processor, nothing else runs.
    for path in made.cgroups if (os.cpu_count() or 1) > 1 else ():
        for share, most in (("cpu.shares", "200000"), ("cpu.weight", "10000")):
            for level in (path, path.parent):
                if (level / share).exists():
                    (level / share).write_text(most)
    try:
        pid = made.add(*command)
        made.target = Target("d/web/app", "uid", made.cgroups[0].name, pid, started(pid) or 0)
        yield made
    finally:
        for path in made.cgroups:
            for name, go in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                with suppress(OSError):
                    if (path / name).exists():
                        (path / name).write_text(go)
        for process in made.processes:
            process.kill()
            process.wait()
        cgroups.remove_all()


def state(pid: int) -> str:
    """Read the state letter of a process; proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def spent(pid: int) -> int:
    """Read processor time of a process, in clock ticks."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]))


def alive(pid: int) -> bool:
    """Is there such a process?"""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
