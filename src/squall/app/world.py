"""The world of this host: every port of `injection.world`, by its adapter."""

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

from squall.api.cluster import Cluster
from squall.app.places import Places
from squall.clock import Clock
from squall.errors import Unsupported
from squall.injection.world import World
from squall.kubernetes.paused_pods import PausedPods
from squall.kubernetes.pods import FrozenPods
from squall.linux.containers import LinuxContainers
from squall.linux.exchanges import LinuxHttp
from squall.linux.files import LinuxFiles
from squall.linux.name_faults import LinuxNames
from squall.linux.network import LinuxNetwork
from squall.linux.shaping import Shaping
from squall.linux.stressors import LinuxStressors
from squall.linux.trust import LinuxTrust


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
    containers = LinuxContainers()
    return World(
        clock=clock,
        network=LinuxNetwork(places.run / "packets", lease_seconds=lease_seconds, shaping=shaping),
        containers=containers,
        pods=FrozenPods(cluster, containers),
        stressors=LinuxStressors(clock),
        allow_host_network=allow_host_network,
        files=LinuxFiles(places.run / "files", lease_seconds=lease_seconds),
        http=LinuxHttp(places.run / "http", lease_seconds=lease_seconds),
        names=LinuxNames(places.run / "dns", lease_seconds=lease_seconds),
        trust=LinuxTrust(),
    )


def api_world(clock: Clock, pods: PausedPods) -> World:
    """Build what faults act through that need the API alone, and no node."""
    nowhere: Any = _Nowhere()
    return World(
        clock=clock,
        network=nowhere,
        containers=nowhere,
        pods=pods,
        stressors=nowhere,
        names=nowhere,
        http=nowhere,
        files=nowhere,
        trust=nowhere,
    )


class _Nowhere:
    """Every port that needs a node, where there is none."""

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, NoReturn]]:
        async def refuse(*_: object, **__: object) -> NoReturn:
            raise Unsupported(
                f"{name} needs the agent of the target's node; the controller acts by the API alone"
            )

        return refuse


def squall_command() -> str:
    """Path of the `squall` that runs; a watcher calls it long after this process is gone."""
    beside = Path(sys.executable).with_name("squall")
    return str(beside if beside.exists() else Path(sys.argv[0]).resolve())
