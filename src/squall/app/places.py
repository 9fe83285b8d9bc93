"""Where one installation keeps its things, and what they are called."""

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from squall.errors import TryAgain
from squall.node.journal import Journal

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


@contextmanager
def tidied(places: Places) -> Iterator[None]:
    """Remove an agent's files afterwards, unless its journal says that they are needed.

    Hold the lock (`alone`) until then.
    """
    yield
    # Reached only after a clean end: whatever else happened, the journal must be seen through.
    remove_if_empty(places.run)
    with closing(Journal(places.journal, boot_id())) as journal:
        if not journal.empty or journal.lost:
            return
    journals = (f"{places.journal.name}{rest}" for rest in ("", "-wal", "-shm"))
    files = [places.directory / name for name in journals]
    files += [places.journal.with_suffix(".lock"), places.lock]
    files += [places.watcher, places.watcher.with_suffix(".log")]
    for file in files:
        file.unlink(missing_ok=True)
    remove_if_empty(places.directory)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that nobody needs any more; one that somebody uses stays."""
    with suppress(OSError):  # somebody's mount point, or there is more in it
        folder.rmdir()


def boot_id() -> str:
    """Read which boot this is; random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def node_name() -> str:
    """Name of this host as a node: what a Kubernetes name allows of its host name."""
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname().lower())
    return name.strip("-.") or "localhost"
