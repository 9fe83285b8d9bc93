"""Processes of a cluster: started in its cgroup, found by it, ended by pid and start time."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from testbed.cluster.layout import Layout, hierarchies

HIERARCHY = "pids"
"""Where the components are put; their containers' shims are their children and stay there."""

COMPONENTS = "components"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that no other can be taken for."""

    pid: int
    started: int
    """In clock ticks since boot (proc(5), stat, field 22)."""

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Look at a process; `None` when it is gone or only waits to be reaped."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        """Say whether it runs."""
        return Process.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and to no other."""
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self.alive:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)

    def wait(self, seconds: float) -> bool:
        """Wait until it is gone; says whether it is."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if self.alive:
                select.select([handle], [], [], seconds)
        finally:
            os.close(handle)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return not self.alive


def end(processes: Sequence[Process], seconds: float) -> None:
    """Ask all to end, give them that time together, and kill those that have not."""
    for process in processes:
        process.send(signal.SIGTERM)
    deadline = time.monotonic() + seconds
    for process in processes:
        if not process.wait(max(0.0, deadline - time.monotonic())):
            process.send(signal.SIGKILL)
            process.wait(seconds)


class Processes:
    """The components of one cluster that run, noted in files so that another run finds them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._notes = layout.folder / "processes"

    def start(self, name: str, command: Sequence[str], *, owned: bool) -> Process:
        """Start a component, with its log in the cluster's folder.

        Args:
            name: what its log and its note are called.
            command: what to run, in the cluster's folder.
            owned: it is to die with this process.

        Raises:
            RuntimeError: it runs already, or ended at once.
        """
        if self.find(name) is not None:
            raise RuntimeError(f"{name} runs already")
        self._notes.mkdir(parents=True, exist_ok=True)
        self._layout.logs.mkdir(parents=True, exist_ok=True)
        group = components_cgroup(self._layout)
        group.mkdir(parents=True, exist_ok=True)
        enter = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs")]
        tied = ["setpriv", "--pdeathsig", "KILL", "--"] if owned else []
        with (self._layout.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [*enter, *tied, *command],
                cwd=self._layout.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests; they end it in their own order
            )
        child.returncode = 0  # `Process.wait` reaps it; Popen is not to warn that it still runs
        process = Process.of(child.pid)
        if process is None:
            raise RuntimeError(f"{name} ended at once; see {self._layout.logs / name}.log")
        note = {"pid": process.pid, "started": process.started}
        (self._notes / f"{name}.json").write_text(json.dumps(note))
        return process

    def find(self, name: str) -> Process | None:
        """Find a component that was started; `None` when it does not run."""
        with suppress(OSError):
            noted = json.loads((self._notes / f"{name}.json").read_text())
            process = Process(noted["pid"], noted["started"])
            return process if process.alive else None
        return None

    def all(self) -> Iterator[Process]:
        """Find every process of the cluster: components, shims, containers."""
        return in_cgroups(self._layout.cgroup)


def components_cgroup(layout: Layout) -> Path:
    """Say where the components are."""
    (root,) = [each for each in hierarchies() if each.name == HIERARCHY]
    return root / layout.cgroup / COMPONENTS


def in_cgroups(path: str) -> Iterator[Process]:
    """Find every process at or below that path in any hierarchy."""
    seen: set[int] = set()
    for root in hierarchies():
        for folder, _, _ in os.walk(root / path.lstrip("/")):
            with suppress(OSError):
                seen.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
    return (process for pid in sorted(seen) if (process := Process.of(pid)) is not None)
