"""Where one installation keeps its things, and what they are called."""

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from squall.errors import TryAgain

RUN = Path("/run/squall")
"""Below it, one directory for each installation; emptied by a reboot, as it should be."""


@dataclass(frozen=True, slots=True)
class Places:
    """Paths and names of one installation, from its data directory alone."""

    directory: Path

    @property
    def mark(self) -> str:
        """What everything of ours in this kernel is called; differs between installations."""
        digest = hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()
        return f"squall-{digest[:8]}"

    @property
    def aside(self) -> str:
        """Name of the cgroup for what outlives an agent."""
        return f"{self.mark}-agent"

    @property
    def run(self) -> Path:
        """Sockets, namespaces, states."""
        return RUN / self.mark.removeprefix("squall-")

    @property
    def objects(self) -> Path:
        """The store of the embedded API."""
        return self.directory / "objects.db"

    @property
    def journal(self) -> Path:
        """The agent's."""
        return self.directory / "journal.db"

    @property
    def lock(self) -> Path:
        """Held by the one `squall up` or `squall agent` of this directory."""
        return self.directory / "up.lock"

    @property
    def watcher(self) -> Path:
        """Names the watcher in charge."""
        return self.directory / "watcher.lock"

    @property
    def kubeconfig(self) -> Path:
        """How clients reach the embedded API."""
        return self.directory / "kubeconfig"

    @property
    def logs(self) -> Path:
        """What local workloads write."""
        return self.directory / "logs"


@contextmanager
def alone(places: Places) -> Iterator[None]:
    """Keep every other process with an agent away from an installation, before touching it.

    Raises:
        TryAgain: another one runs.
    """
    with places.lock.open("w") as file:
        try:
            # A record lock, not flock: children that we fork must not keep it alive.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as held:
            used = f"{places.directory} is used by another squall up or squall agent"
            raise TryAgain(f"{used}; stop that one, or give this one its own --data-dir") from held
        # Whoever ends removes it: ours may be a file that nobody else will ever find.
        if not places.lock.exists() or not os.path.samestat(
            os.fstat(file.fileno()), places.lock.stat()
        ):
            raise TryAgain(f"{places.directory} was being left by another squall agent; try again")
        yield


def emptied(places: Places) -> None:
    """Remove what an agent that ended cleanly has left in its folders, where its journal is gone.

    Call it while `alone`, and when nobody watches any more.
    """
    if places.journal.exists():
        return
    for path in (places.watcher, places.watcher.with_suffix(".log"), places.lock):
        path.unlink(missing_ok=True)
    if places.run.is_dir():
        for log in places.run.glob("*.log"):  # of holders, none of which is left
            log.unlink(missing_ok=True)
        with suppress(OSError):
            places.run.rmdir()


def boot_id() -> str:
    """Read which boot this is; random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def node_name() -> str:
    """Name of this host as a node: what a Kubernetes name allows of its host name."""
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname().lower())
    return name.strip("-.") or "localhost"
