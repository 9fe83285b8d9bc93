"""A container without a runtime: processes in cgroups of their own, and nothing else."""

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from squall.injection.world.target import Target
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

    def path(self, controller: str) -> Path:
        """Find its cgroup in the hierarchy of one controller."""
        return next(path for path in self.cgroups if f"/{controller}/" in str(path))

    def add(self, *command: str) -> int:
        """Run one more process in it."""
        process = subprocess.Popen(command)
        self.processes.append(process)
        for path in self.cgroups:
            (path / "cgroup.procs").write_text(str(process.pid))
        return process.pid


def roots(*names: str) -> tuple[Path, ...]:
    """Find hierarchies by the last part of their mount point; all where none is named."""
    mounted = hierarchies(Path("/proc/self/mountinfo").read_text())
    return tuple(root for root in mounted if not names or root.name in names)


@contextmanager
def cell(*hierarchy_names: str, command: Sequence[str] = REST) -> Iterator[Cell]:
    """Make one, and end it with all its processes."""
    cgroups = SandboxCgroups(f"squall-{secrets.token_hex(4)}", roots(*hierarchy_names))
    made = Cell(cgroups.create(secrets.token_hex(32)), Target("d/web/app", "uid", "", 0, 0))
    for path in made.cgroups:
        # Other processes of this machine must not starve what is measured.
        for shares in (path / "cpu.shares", path.parent / "cpu.shares"):
            if shares.exists():
                shares.write_text("200000")
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
