"""Local workloads: what a kubelet does for its Pods, done for the Workloads of this host."""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass, field, replace

from squall.api.cluster import (
    POD,
    WORKLOAD,
    AlreadyExists,
    ApiError,
    Change,
    Cluster,
    Conflict,
    Event,
    NotFound,
    Object,
    Resource,
)
from squall.clock import Clock
from squall.errors import SquallError
from squall.kubernetes.embedded.pods_status import Host, local_status
from squall.kubernetes.embedded.pods_step import (
    Attach,
    CreatePod,
    Decision,
    DeletePod,
    Detach,
    Facts,
    Move,
    Remove,
    Start,
    Terminate,
    next_streak,
    step,
)
from squall.node.sandboxes import Order, PodName, Sandbox, Sandboxes
from squall.node.waiting import unless
from squall.telemetry import logger

_RETRY_SECONDS = 1.0
_STARTS_AT_ONCE = 4  # more of them only wait for each other's netlink and cgroup locks


@dataclass(slots=True)
class _Seen:
    """What is known of one name."""

    workload: Object | None = None
    pod: Object | None = None
    containers: dict[str, Sandbox] = field(default_factory=dict)
    streak: int = 0
    asked_to_end_at: float | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    watched: set[str] = field(default_factory=set)
    """Containers whose end is waited for."""


class LocalWorkloads:
    """Keeps one Pod and one running container for every Workload.

    One task for each name, so that a container that takes long to end holds up nobody else.
    """

    def __init__(self, cluster: Cluster, sandboxes: Sandboxes, host: Host, clock: Clock) -> None:
        self._cluster, self._sandboxes = cluster, sandboxes
        self._host, self._clock = host, clock
        self._seen: dict[PodName, _Seen] = {}
        self._starting = asyncio.Semaphore(_STARTS_AT_ONCE)
        self._tasks: asyncio.TaskGroup
        self._keeping = False
        self._listed = {POD: asyncio.Event(), WORKLOAD: asyncio.Event()}

    async def run(self) -> None:
        """Work until cancelled; containers go on running then, and are adopted by the next one."""
        for sandbox in await self._sandboxes.list():
            self._of(sandbox.pod).containers[sandbox.id] = sandbox
        for name in await self._sandboxes.attached():
            self._of(name)
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._follow(WORKLOAD))
            self._tasks.create_task(self._follow(POD, f"spec.nodeName={self._host.name}"))
            # Nothing is decided before everything was listed: what is not known is not absent.
            for listed in self._listed.values():
                await listed.wait()
            self._keeping = True
            for name in list(self._seen):
                self._keep(name)

    async def _follow(self, resource: Resource, fields: str = "") -> None:
        async for event in self._cluster.watch(resource, fields=fields):
            if event.change is Change.SYNCED:
                self._listed[resource].set()
            elif resource is WORKLOAD or _is_ours(event.object):
                self._notice(event, resource)

    def _notice(self, event: Event, resource: Resource) -> None:
        metadata = event.object["metadata"]
        name = PodName(metadata["namespace"], metadata["name"])
        is_new = name not in self._seen
        seen = self._of(name)
        if resource is WORKLOAD:
            seen.workload = _after(event, seen.workload)
        else:
            seen.pod = _after(event, seen.pod)
        seen.changed.set()
        if is_new and self._keeping:
            self._keep(name)

    def _of(self, name: PodName) -> _Seen:
        return self._seen.setdefault(name, _Seen())

    def _keep(self, name: PodName) -> None:
        self._tasks.create_task(self._keeper(name), name=f"workload {name}")

    async def _keeper(self, name: PodName) -> None:
        """Bring one name where it should be, until nothing of it is left."""
        seen = self._seen[name]
        while True:
            seen.changed.clear()
            wait: float | None
            try:
                decision = await self._look(name, seen)
                if decision.moves:
                    continue
                wait = decision.wait_seconds
            except (Conflict, NotFound):
                wait = _RETRY_SECONDS  # somebody was faster; the watch will tell
            except Exception as failed:  # noqa: BLE001  (one workload's bug is not everybody's)
                logger(__name__).warning("workload %s: %r", name, failed)
                await self._tell(seen, f"{failed}")
                wait = _RETRY_SECONDS
            idle = seen.workload is None and seen.pod is None and not seen.containers
            if idle and name not in await self._sandboxes.attached():
                if not seen.changed.is_set():
                    del self._seen[name]
                    return
                continue
            if wait is None:
                await seen.changed.wait()
            else:
                await unless(seen.changed, self._clock.sleep(wait))

    async def _look(self, name: PodName, seen: _Seen) -> Decision:
        containers = sorted(seen.containers.values(), key=_begin)
        attached = await self._sandboxes.attached()
        facts = Facts(
            name=name,
            host=self._host,
            workload=seen.workload,
            pod=seen.pod,
            containers=containers,
            attached=name in attached,
            streak=seen.streak,
            asked_to_end_at=seen.asked_to_end_at,
        )
        now = self._clock.now().timestamp()
        decision = step(facts, now)
        for sandbox in containers:
            self._watch_end(seen, sandbox)
        if decision.report:
            await self._report(seen, containers, attached.get(name, ()), decision, now)
        for move in decision.moves:
            await self._make(move, name, seen)
        return decision

    async def _report(
        self,
        seen: _Seen,
        containers: list[Sandbox],
        addresses: tuple[str, ...],
        decision: Decision,
        now: float,
    ) -> None:
        pod = seen.pod
        if pod is None:
            return
        status = local_status(
            pod, containers, addresses, self._host, now, restarts=decision.restarts
        )
        if status.items() <= (pod.get("status") or {}).items():
            return
        metadata = pod["metadata"]
        seen.pod = await self._cluster.patch(
            POD, metadata["namespace"], metadata["name"], {"status": status}, subresource="status"
        )
        ended = containers[-1].ended
        await self._tell(seen, ended.message if ended else "")

    async def _tell(self, seen: _Seen, message: str) -> None:
        """Write the Workload's status; it is news, and nothing depends on it."""
        workload = seen.workload
        if workload is None:
            return
        status = (seen.pod or {}).get("status") or {}
        containers = status.get("containerStatuses") or [{}]
        news = {
            "phase": status.get("phase", "Pending"),
            "restarts": containers[0].get("restartCount", 0),
            "message": message,
        }
        if news == workload.get("status"):
            return
        where = workload["metadata"]
        with suppress(ApiError):
            seen.workload = await self._cluster.patch(
                WORKLOAD, where["namespace"], where["name"], {"status": news}, subresource="status"
            )

    async def _make(self, move: Move, name: PodName, seen: _Seen) -> None:
        """Carry out one move; what it changes is known at once, before any watch tells."""
        match move:
            case CreatePod(pod):
                await self._create(pod, seen)
            case DeletePod(uid, now):
                await self._delete(name, seen, uid, at_once=now)
            case Attach():
                async with self._starting:
                    await self._sandboxes.attach(name)
            case Detach():
                await self._sandboxes.detach(name)
            case Start():
                await self._start(name, seen)
            case Terminate(id_, number):
                seen.asked_to_end_at = self._clock.now().timestamp()
                await self._sandboxes.signal(id_, number)
            case Remove(id_):
                await self._sandboxes.remove(id_)
                seen.containers.pop(id_, None)
                seen.asked_to_end_at = None

    async def _create(self, pod: Object, seen: _Seen) -> None:
        try:
            seen.pod = await self._cluster.create(POD, pod)
        except AlreadyExists as taken:
            if seen.pod is None:
                raise SquallError(f"{taken}, and it is not of this workload") from taken

    async def _delete(self, name: PodName, seen: _Seen, uid: str, *, at_once: bool) -> None:
        grace = 0 if at_once else None
        try:
            await self._cluster.delete(POD, name.namespace, name.name, uid=uid, grace_seconds=grace)
            seen.pod = await self._cluster.get(POD, name.namespace, name.name)
        except NotFound:
            seen.pod = None

    async def _start(self, name: PodName, seen: _Seen) -> None:
        if seen.pod is None:
            return
        container = seen.pod["spec"]["containers"][0]
        order = Order(
            id=secrets.token_hex(32),
            pod=name,
            pod_uid=seen.pod["metadata"]["uid"],
            command=tuple(container["command"]),
            environment={each["name"]: each.get("value", "") for each in container.get("env", ())},
        )
        if seen.containers:
            newest = max(seen.containers.values(), key=_begin)
            seen.streak = next_streak(seen.streak, newest)
        async with self._starting:
            seen.containers[order.id] = await self._sandboxes.start(order)

    def _watch_end(self, seen: _Seen, sandbox: Sandbox) -> None:
        if sandbox.ended or sandbox.id in seen.watched:
            return
        seen.watched.add(sandbox.id)
        self._tasks.create_task(self._until_end(seen, sandbox))

    async def _until_end(self, seen: _Seen, sandbox: Sandbox) -> None:
        ended = await self._sandboxes.ended(sandbox.id)
        seen.watched.discard(sandbox.id)
        if sandbox.id in seen.containers:
            seen.containers[sandbox.id] = replace(sandbox, ended=ended)
            seen.changed.set()


def _begin(sandbox: Sandbox) -> float:
    """Order containers by start; one that never ran has only an end."""
    return sandbox.at or (sandbox.ended.at if sandbox.ended else 0.0)


def _is_ours(pod: Object) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner.get("kind") == WORKLOAD.kind for owner in owners)


def _after(event: Event, known: Object | None) -> Object | None:
    """Take in what a watch says, unless it is late: versions of our store are numbers that grow."""
    told = event.object["metadata"]
    same = known is not None and known["metadata"]["uid"] == told["uid"]
    if event.change is Change.DELETED:
        return None if same else known
    if known and same and int(told["resourceVersion"]) < int(known["metadata"]["resourceVersion"]):
        return known
    return event.object
