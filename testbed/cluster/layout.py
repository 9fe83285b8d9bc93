"""Where everything of one cluster is: names, folders and addresses, all derived from its name."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

RUN = Path("/run/testbed")
"""Holds a folder for each cluster."""

MEMORY = Path("/dev/shm")  # noqa: S108  (a folder of our own in it)
"""No disk: etcd waits for its own at every write, and its data has to outlive only a SIGKILL."""

CGROUPS = Path("/sys/fs/cgroup")
DEFAULT_NAME = "dev"
SERVICES = ipaddress.ip_network("10.96.0.0/16")
PODS = ipaddress.ip_network("10.244.0.0/16")
DNS = "10.96.0.10"
"""Address of the Service that answers names, as kubeadm's clusters have it."""

# Whoever has one of these has one of those above too: every cluster is dual-stack, IPv4 first.
SERVICES_SIX = ipaddress.ip_network("fd00:10:96::/112")
PODS_SIX = ipaddress.ip_network("fd00:10:244::/48")
DNS_SIX = "fd00:10:96::a"

_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")


@dataclass(frozen=True, slots=True)
class Node:
    """One machine that is none: a network namespace with a container runtime and a kubelet."""

    cluster: str
    name: str
    number: int
    """From 1."""
    address: str
    address_six: str
    pods: str
    """What its pods' addresses are taken from."""
    pods_six: str

    @property
    def net(self) -> Path:
        """Holds its network namespace."""
        return RUN / self.cluster / "pins" / f"{self.name}.net"

    @property
    def view(self) -> Path:
        """Holds its mount namespace."""
        return RUN / self.cluster / "pins" / f"{self.name}.mnt"

    @property
    def folder(self) -> Path:
        """Data of its container runtime and kubelet."""
        return RUN / self.cluster / self.name

    @property
    def socket(self) -> Path:
        """Where its container runtime listens, seen from this machine."""
        return self.folder / "own/run-containerd/containerd.sock"

    @property
    def cgroup(self) -> str:
        """Path of its pods' cgroups, in every hierarchy."""
        return f"/testbed-{self.cluster}/{self.name}"

    @property
    def uplink(self) -> str:
        """Name of its cable's other end, on the bridge."""
        return f"v-{self.name}"


@dataclass(frozen=True, slots=True)
class Layout:
    """All names and places of one cluster."""

    name: str
    index: int
    """Which subnet it has; no two clusters that are up have the same."""
    size: int
    """How many nodes."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} names no cluster; at most 20 of a-z, 0-9 and -, a letter first"
            )

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its nodes: node1, node2 and so on."""
        return tuple(
            Node(
                self.name,
                f"node{number}",
                number,
                f"10.89.{self.index}.{10 + number}",
                self._six(10 + number),
                f"10.244.{number}.0/24",
                f"fd00:10:244:{number:x}::/64",
            )
            for number in range(1, self.size + 1)
        )

    @property
    def folder(self) -> Path:
        """Everything but etcd's data and the audit log."""
        return RUN / self.name

    @property
    def memory(self) -> Path:
        """What is written often."""
        return MEMORY / f"testbed-{self.name}"

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.folder / "log"

    @property
    def pins(self) -> Path:
        """Holds all namespaces."""
        return self.folder / "pins"

    @property
    def net(self) -> Path:
        """Holds the network namespace of the control plane, with the bridge between all."""
        return self.pins / "world.net"

    @property
    def cgroup(self) -> str:
        """Every process of the cluster is at or below it, in at least one hierarchy."""
        return f"testbed-{self.name}"

    @property
    def address(self) -> str:
        """Where the API server listens."""
        return f"10.89.{self.index}.1"

    @property
    def address_six(self) -> str:
        """What the control plane has as well."""
        return self._six(1)

    @property
    def dns_address(self) -> str:
        """Where CoreDNS listens."""
        return f"10.89.{self.index}.2"

    @property
    def dns_address_six(self) -> str:
        """Where CoreDNS listens, too."""
        return self._six(2)

    @property
    def host_address(self) -> str:
        """What this machine has in the cluster's subnet, so that tests reach the API server."""
        return f"10.89.{self.index}.254"

    @property
    def host_device(self) -> str:
        """The machine's end of its cable into the cluster."""
        return f"testbed{self.index}"

    @property
    def url(self) -> str:
        """Of the API server."""
        return f"https://{self.address}:6443"

    def _six(self, number: int) -> str:
        return str(ipaddress.IPv6Address(f"fd00:10:89:{self.index:x}::{number:x}"))  # canonical

    def kubeconfig(self, user: str = "admin") -> Path:
        """Where clients of that user find what they need."""
        return self.folder / f"{user}.kubeconfig"


def hierarchies() -> list[Path]:
    """List the mounted hierarchies of cgroups: those of version 1, and unified."""
    return sorted(each for each in CGROUPS.iterdir() if (each / "cgroup.procs").is_file())
