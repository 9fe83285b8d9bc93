"""Where one installation keeps its things, and what they are called."""

import hashlib
import socket
from dataclasses import dataclass
from pathlib import Path

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


def boot_id() -> str:
    """Read which boot this is; random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def node_name() -> str:
    """Name of this host as a node: what a Kubernetes name allows of its host name."""
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname().lower())
    return name.strip("-.") or "localhost"
