"""The world of this host: every port of `injection.world`, by its adapter."""

import sys
from pathlib import Path

from squall.api.cluster import Cluster
from squall.app.places import Places
from squall.clock import Clock
from squall.injection.world import World
from squall.kubernetes.pods import ClusterPods
from squall.linux.containers import LinuxContainers
from squall.linux.network import LinuxNetwork
from squall.linux.shaping import Shaping
from squall.linux.stressors import LinuxStressors


def world(
    places: Places,
    cluster: Cluster,
    clock: Clock,
    shaping: Shaping,
    *,
    lease_seconds: float,
    allow_host_network: bool = False,
) -> World:
    """Build what injectors act through on this host."""
    return World(
        clock=clock,
        network=LinuxNetwork(places.run, lease_seconds=lease_seconds, shaping=shaping),
        containers=LinuxContainers(),
        pods=ClusterPods(cluster),
        stressors=LinuxStressors(clock),
        allow_host_network=allow_host_network,
    )


def squall_command() -> str:
    """Path of the `squall` that runs; a watcher calls it long after this process is gone."""
    beside = Path(sys.executable).with_name("squall")
    return str(beside if beside.exists() else Path(sys.argv[0]).resolve())
