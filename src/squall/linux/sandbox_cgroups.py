"""The cgroups of our own containers, on cgroup v1, v2 and both at once."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# What faults need: load and its limits, memory, freezing, and a count of processes.
_CONTROLLERS = frozenset({"cpu", "cpuacct", "memory", "freezer", "pids"})
_ENABLED = ("cpu", "memory", "pids", "io")
_PATIENCE_SECONDS = 1.0  # a killed process leaves its cgroup a moment after its parent has seen it


def hierarchies(mountinfo: str) -> tuple[Path, ...]:
    """Find where cgroup hierarchies are mounted that our containers should be in.

    Args:
        mountinfo: content of /proc/self/mountinfo; proc_pid_mountinfo(5).

    Returns:
        One mount point for each: v1 hierarchies with a controller that faults need, and v2.
    """
    found: dict[str, Path] = {}
    for line in mountinfo.splitlines():
        place, _, source = line.partition(" - ")
        words, (kind, _, options) = place.split(), source.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and _CONTROLLERS & set(options.split(","))):
            found.setdefault(words[2], Path(words[4]))
    return tuple(found.values())


class SandboxCgroups:
    """One cgroup in each hierarchy for each container, below one that carries our mark."""

    def __init__(self, mark: str, roots: Sequence[Path] | None = None) -> None:
        if roots is None:
            roots = hierarchies(Path("/proc/self/mountinfo").read_text())
        self._roots = tuple(root / mark for root in roots)

    def create(self, container: str) -> tuple[Path, ...]:
        """Make them for a container; again changes nothing."""
        for root in self._roots:
            if not root.is_dir():
                root.mkdir(exist_ok=True)
                _delegate(root.parent)
                _delegate(root)
        made = self._of(container)
        for path in made:
            path.mkdir(exist_ok=True)
        return made

    def oom_kills(self, container: str) -> int:
        """Count processes that were killed for lack of memory; 0 where nobody counts."""
        for path in self._of(container):
            for name in ("memory.events", "memory.oom_control"):
                with suppress(OSError):
                    for line in (path / name).read_text().splitlines():
                        if line.startswith("oom_kill "):
                            return int(line.split()[1])
        return 0

    def containers(self) -> set[str]:
        """List the containers that have a cgroup."""
        found: set[str] = set()
        for root in self._roots:
            with suppress(FileNotFoundError):
                found |= {path.name for path in root.iterdir() if path.is_dir()}
        return found

    def thaw(self, container: str) -> None:
        """Let frozen processes go on: on v1 not even SIGKILL reaches them."""
        for path in self._of(container):
            for name, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                if (path / name).exists():
                    with suppress(OSError):
                        (path / name).write_text(value)

    def remove(self, container: str) -> None:
        """Kill whoever is left in there and remove them; blocks up to a second."""
        self.thaw(container)
        until = time.monotonic() + _PATIENCE_SECONDS
        for path in self._of(container):
            while True:
                try:
                    path.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    _kill(path)
                    time.sleep(0.002)
                else:
                    break

    def remove_all(self) -> None:
        """Remove the cgroups of every container, and the one above them."""
        for container in self.containers():
            self.remove(container)
        for root in self._roots:
            with suppress(FileNotFoundError):
                root.rmdir()

    def _of(self, container: str) -> tuple[Path, ...]:
        return tuple(root / container for root in self._roots)


def _delegate(path: Path) -> None:
    """Let the children of a v2 cgroup have controllers; each where the host allows it."""
    control = path / "cgroup.subtree_control"
    if not control.exists():
        return
    for name in _ENABLED:
        with suppress(OSError):
            control.write_text(f"+{name}")


def _kill(path: Path) -> None:
    with suppress(OSError):
        for pid in (path / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
