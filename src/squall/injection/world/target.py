"""The things on this node that faults can touch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One pod or container, resolved on this node just now."""

    id: str
    """Record id on the wire: `namespace/pod` or `namespace/pod/container`."""

    pod_uid: str

    container_id: str
    """Without the runtime's prefix. Of a pod target: its first running container."""

    pid: int
    """Init process of that container, in the agent's own PID namespace."""

    started: int
    """Start time of `pid` in clock ticks after boot (/proc/PID/stat, field 22); tells it from a
    later process with the same number."""

    host_network: bool = False
    """True where the pod shares the network namespace of the node."""
