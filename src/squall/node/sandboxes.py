"""Containers of this host, as ports: those that this node runs itself, and those of others."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, order=True)
class PodName:
    """Which pod a container belongs to; its network outlives the pod's uid."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Write it as records do: `namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Order:
    """A container to be started."""

    id: str
    """64 hexadecimal digits, chosen by the caller."""
    pod: PodName
    pod_uid: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of this process."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended."""

    status: int
    """Exit status; 128 + n after signal n."""
    at: float
    """Unix time in seconds."""
    message: str = ""
    """Why it never ran; empty when it did."""
    oom_killed: bool = False


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A container of ours: it runs, or has ended and is not removed yet."""

    id: str
    pod: PodName
    pod_uid: str
    pid: int = 0
    """Its init process; 0 when it never ran."""
    started: int = 0
    """Start time of `pid` in clock ticks after boot."""
    at: float = 0.0
    """Start in Unix time, in seconds."""
    ended: Ended | None = None


class Sandboxes(Protocol):
    """Containers that this node runs; they survive it, and are found again by `list`."""

    async def attach(self, pod: PodName) -> tuple[str, ...]:
        """Give a pod a network of its own; again changes nothing.

        Returns:
            Its addresses, IPv4 first: always the same ones until `detach`.
        """

    async def detach(self, pod: PodName) -> None:
        """Take the network of a pod away; absent is fine. None of its containers may run."""

    async def attached(self) -> Mapping[PodName, tuple[str, ...]]:
        """List pods that have a network, with their addresses."""

    async def list(self) -> Sequence[Sandbox]:
        """List every container that was started and not removed, whoever started it."""

    async def start(self, order: Order) -> Sandbox:
        """Start a container of an attached pod.

        Never raises for what the command does: one that cannot be executed comes back ended.
        """

    async def signal(self, id_: str, number: int) -> None:
        """Send a signal to its init, which passes it on; nothing when it has ended."""

    async def ended(self, id_: str) -> Ended:
        """Wait for its end."""

    async def remove(self, id_: str) -> None:
        """End it if it runs, and forget it; absent is fine."""


@dataclass(frozen=True, slots=True)
class HostContainer:
    """A running container of some other runtime on this host."""

    id: str
    runtime: str
    """Prefix of its container id on the wire, as `docker`."""
    pid: int
    started: int
    """Start time of `pid` in clock ticks after boot."""
    at: float
    """Start in Unix time, in seconds."""
    name: str
    """As the runtime calls it; the short id where nobody told."""
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    """Of its network namespace, without loopback and link-local ones."""
    host_network: bool = False


class HostContainers(Protocol):
    """The containers of other runtimes on this host."""

    async def list(self) -> Sequence[HostContainer]:
        """Look for what runs now."""

    async def signal(self, container: HostContainer, number: int) -> None:
        """Send a signal to its init; nothing when it has ended."""


class Logs(Protocol):
    """What containers of ours wrote."""

    def read(
        self, id_: str, *, follow: bool, tail_lines: int | None, limit_bytes: int | None
    ) -> AsyncIterator[bytes]:
        """Read a log; with `follow` until the container has ended. KeyError: no such log."""
