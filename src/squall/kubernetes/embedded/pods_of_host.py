"""This host as a Node, and the containers of other runtimes on it as Pods."""

import asyncio
import platform
from collections.abc import Sequence
from contextlib import suppress
from signal import SIGKILL

from squall.api.cluster import (
    NODE,
    POD,
    AlreadyExists,
    Change,
    Cluster,
    Conflict,
    Event,
    NotFound,
    Object,
)
from squall.clock import Clock
from squall.errors import SquallError
from squall.kubernetes.embedded.pods_mirror import (
    MIRROR,
    NAMESPACE,
    Asked,
    Create,
    End,
    Forget,
    Order,
    Report,
    address,
    mirror,
    mirror_status,
)
from squall.kubernetes.embedded.pods_status import Host, timestamp
from squall.node.sandboxes import HostContainer, HostContainers
from squall.node.waiting import unless

_LOOK_SECONDS = 2.0
_SOON_SECONDS = 0.2  # after a signal: the container is about to vanish
_SHARE = 0.004  # of one core that looking for containers may take, however many processes there are


class HostPods:
    """Keeps one Pod for every container that some other runtime runs here."""

    def __init__(
        self, cluster: Cluster, containers: HostContainers, host: Host, clock: Clock
    ) -> None:
        self._cluster, self._containers = cluster, containers
        self._host, self._clock = host, clock
        self._pods: dict[str, Object] = {}  # of other runtimes' containers, by uid
        self._taken: dict[str, str] = {}  # names of all other Pods in the namespace, by uid
        self._asked: dict[str, Asked] = {}
        self._forgotten: set[str] = set()  # uids of Pods that went because their container did
        self._found: Sequence[HostContainer] = ()
        self._look_at = 0.0
        self._listed, self._changed = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            await self._listed.wait()
            while True:
                self._changed.clear()
                try:
                    await self._converge()
                except SquallError:
                    self._look_soon()  # somebody else wrote first, or the API is away
                left = self._look_at - self._clock.boottime()
                await unless(self._changed, self._clock.sleep(left))

    async def _follow(self) -> None:
        async for event in self._cluster.watch(POD, NAMESPACE):
            if event.change is Change.SYNCED:
                self._listed.set()
                continue
            metadata = event.object["metadata"]
            if MIRROR not in (metadata.get("annotations") or {}):
                self._notice_other(event)
            elif event.change is not Change.DELETED:
                self._pods[metadata["uid"]] = event.object
            elif self._pods.pop(metadata["uid"], None) and metadata["uid"] not in self._forgotten:
                await self._end_at_once(event.object)
            self._changed.set()

    def _notice_other(self, event: Event) -> None:
        metadata = event.object["metadata"]
        if event.change is Change.DELETED:
            self._taken.pop(metadata["uid"], None)
        else:
            self._taken[metadata["uid"]] = metadata["name"]

    async def _end_at_once(self, pod: Object) -> None:
        """Somebody deleted a Pod without grace: its container goes with it."""
        for container in self._found:
            if address(container) == pod["metadata"]["annotations"][MIRROR]:
                await self._containers.signal(container, SIGKILL)
                self._look_at = self._clock.boottime() + _SOON_SECONDS
                # Until then it is as good as gone: no new Pod for a dying container.
                self._found = [each for each in self._found if each is not container]

    async def _converge(self) -> None:
        begin = self._clock.boottime()
        if begin >= self._look_at:
            self._found = await self._containers.list()
            took = self._clock.boottime() - begin
            self._look_at = begin + max(_LOOK_SECONDS, took / _SHARE)
        alive = {each.id for each in self._found}
        self._asked = {id_: asked for id_, asked in self._asked.items() if id_ in alive}
        stored, taken = list(self._pods.values()), set(self._taken.values())
        now = self._clock.now().timestamp()
        for order in mirror(self._found, stored, self._asked, self._host, now, taken=taken):
            await self._carry_out(order, now)

    async def _carry_out(self, order: Order, now: float) -> None:
        match order:
            case Create(container, pod):
                made = await self._cluster.create(POD, pod)
                await self._report(made, mirror_status(made, container, self._host, now))
            case Report(pod, status):
                await self._report(pod, status)
            case End(container, number):
                self._asked.setdefault(container.id, Asked(container.started, now))
                await self._containers.signal(container, number)
                self._look_soon()
            case Forget(pod):
                await self._forget(pod)

    async def _report(self, pod: Object, status: Object) -> None:
        metadata = pod["metadata"]
        written = await self._cluster.patch(
            POD, metadata["namespace"], metadata["name"], {"status": status}, subresource="status"
        )
        self._pods[metadata["uid"]] = written

    async def _forget(self, pod: Object) -> None:
        metadata = pod["metadata"]
        self._forgotten.add(metadata["uid"])
        with suppress(NotFound, Conflict):
            await self._cluster.delete(
                POD, metadata["namespace"], metadata["name"], uid=metadata["uid"], grace_seconds=0
            )
        self._pods.pop(metadata["uid"], None)

    def _look_soon(self) -> None:
        self._look_at = min(self._look_at, self._clock.boottime() + _SOON_SECONDS)


async def register(cluster: Cluster, host: Host, clock: Clock) -> None:
    """Store this host as a ready Node, or bring the stored one up to date."""
    node = node_object(host, clock.now().timestamp())
    with suppress(AlreadyExists):
        await cluster.create(NODE, node)
    await cluster.patch(NODE, None, host.name, {"metadata": {"labels": node["metadata"]["labels"]}})
    await cluster.patch(NODE, None, host.name, {"status": node["status"]}, subresource="status")


def node_object(host: Host, now: float) -> Object:
    """Write the Node of this host."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    system = platform.system().lower()
    addresses = [{"type": "InternalIP", "address": each} for each in host.addresses]
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "SquallRuns",
        "message": "squall up runs on this host",
        "lastHeartbeatTime": timestamp(now),
        "lastTransitionTime": timestamp(now),
    }
    return {
        "apiVersion": NODE.api_version,
        "kind": NODE.kind,
        "metadata": {
            "name": host.name,
            "labels": {
                "kubernetes.io/hostname": host.name,
                "kubernetes.io/os": system,
                "kubernetes.io/arch": machine,
            },
        },
        "spec": {},
        "status": {
            "conditions": [ready],
            "addresses": [*addresses, {"type": "Hostname", "address": host.name}],
            "nodeInfo": {
                "architecture": machine,
                "operatingSystem": system,
                "kernelVersion": platform.release(),
                "osImage": platform.version(),
                "containerRuntimeVersion": "squall://1",
                "kubeletVersion": "squall",
                "kubeProxyVersion": "",
                "bootID": "",
                "machineID": "",
                "systemUUID": "",
            },
        },
    }
