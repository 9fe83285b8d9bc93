"""Taking every fault back before an installation goes, so that nothing is left in any target."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from squall.api.cluster import (
    HALT,
    NODE_FAULT,
    AlreadyExists,
    ApiError,
    Cluster,
    NotFound,
    Object,
    Resource,
)
from squall.api.metadata import CONTROLLER_NODE, RECORDS_FINALIZER
from squall.api.status import NOT_INJECTED
from squall.clock import Clock
from squall.errors import TryAgain
from squall.faults import kinds
from squall.installation.progress import Progress
from squall.installation.resources import called
from squall.installation.standing import FORBIDDEN

HALT_NAME = "uninstall"
REASON = "squall is being uninstalled"
LOOK_SECONDS = 0.25
"""Between two looks at what is being waited for."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What one installation acts on."""

    namespace: str
    """Of the installation: its NodeFaults are there."""
    target_namespace: str = ""
    """The only namespace of its experiments; empty: all."""
    alone: bool = True
    """No other installation is in the cluster, so that a Halt stops nobody else's faults."""


class Healer:
    """Halts, deletes every experiment and waits until all of it is gone.

    Args:
        cluster: where.
        clock: waits are measured on it.
        progress: is told what happens.
        reach: what the installation acts on.
    """

    def __init__(self, cluster: Cluster, clock: Clock, progress: Progress, reach: Reach) -> None:
        self._cluster, self._clock, self._progress = cluster, clock, progress
        self._reach = reach

    async def heal(self, *, timeout_seconds: float, force: bool) -> None:
        """Take every fault back and delete every experiment.

        The Halt that it makes stays; `release` takes it away.

        Args:
            timeout_seconds: how long to wait, for each of both.
            force: go on after the timeout, and let the objects go.

        Raises:
            TryAgain: not all is taken back in time; says which nodes do not answer.
        """
        if not await self._experiments() and not await self._node_faults():
            self._progress.done("no experiment is there; nothing has to be taken back")
            return
        await self._halt()
        for resource, obj in await self._experiments():
            await self._delete(resource, obj)
        ends = self._clock.boottime() + timeout_seconds
        if await self._until(self._touched, ends):
            self._progress.done("every target is as it was")
        else:
            await self._give_up_on_targets(timeout_seconds, force=force)
        if not await self._until(self._left, ends):
            await self._let_go(timeout_seconds, force=force)
        self._progress.done("every experiment is gone")

    async def release(self) -> None:
        """Take the Halt away; it holds new faults back until then."""
        try:
            await self._cluster.delete(HALT, None, HALT_NAME)
        except NotFound:
            return
        except ApiError as refused:
            if refused.code != FORBIDDEN:
                raise

    async def _halt(self) -> None:
        if not self._reach.alone:
            self._progress.done("another installation is in this cluster: its faults go on")
            return
        try:
            wanted: Object = {"metadata": {"name": HALT_NAME}, "spec": {"reason": REASON}}
            await self._cluster.create(HALT, wanted)
        except AlreadyExists:
            pass
        except ApiError as refused:
            if refused.code not in {FORBIDDEN, 404}:
                raise
            self._progress.done(f"going on without a halt: {refused}")
            return
        self._progress.done("halted: every agent takes its faults back and refuses new ones")

    async def _delete(self, resource: Resource, obj: Object) -> None:
        metadata = obj["metadata"]
        try:
            await self._cluster.delete(resource, metadata["namespace"], metadata["name"])
        except NotFound:
            return
        where = f"in namespace {metadata['namespace']}"
        self._progress.done(f"{called(resource, metadata['name'])} {where} is being deleted")

    async def _until(self, left: Callable[[], Awaitable[str]], ends: float) -> bool:
        """Wait until nothing is left, and tell meanwhile what is; False when time is up."""
        while words := await left():
            if self._clock.boottime() >= ends:
                return False
            self._progress.waiting(words)
            await self._clock.sleep(LOOK_SECONDS)
        return True

    async def _give_up_on_targets(self, timeout_seconds: float, *, force: bool) -> None:
        nodes = {obj["spec"]["nodeName"] for obj in await self._node_faults() if not restored(obj)}
        agents = ", ".join(
            "the controller" if node == CONTROLLER_NODE else f"the agent on {node}"
            for node in sorted(nodes)
        )
        told = (
            f"after {timeout_seconds:g} s {agents} did not say that its targets are as they were. "
            "An agent that is alive and cut off restores them by itself one lease after it last "
            "heard of the controller; one that is dead does when it starts again"
        )
        if not force:
            raise TryAgain(
                f"{told}. The halt stays, so nothing is injected again. Bring the node back and "
                "run this again, or go on without it with --force: then run `squall recover --all` "
                "in the agent's data directory on that node, or reboot it"
            )
        self._progress.done(f"{told}; going on because of --force")

    async def _let_go(self, timeout_seconds: float, *, force: bool) -> None:
        words = await self._left()
        if not force:
            raise TryAgain(
                f"after {timeout_seconds:g} s there is still {words}. Is a controller running? "
                "The halt stays, so nothing is injected again. Run this again, or have the "
                "objects go as they are with --force"
            )
        self._progress.done(f"letting go of {words} because of --force")
        experiments = await self._experiments()
        node_faults = [(NODE_FAULT, obj) for obj in await self._node_faults()]
        for resource, obj in [*experiments, *node_faults]:
            await self._strip(resource, obj)

    async def _strip(self, resource: Resource, obj: Object) -> None:
        """Delete an object whose finalizers nobody is there to remove."""
        metadata = obj["metadata"]
        where, name = metadata["namespace"], metadata["name"]
        kept = [f for f in metadata.get("finalizers") or () if f != RECORDS_FINALIZER]
        try:
            await self._cluster.patch(resource, where, name, {"metadata": {"finalizers": kept}})
            await self._cluster.delete(resource, where, name)
        except NotFound:
            return

    async def _touched(self) -> str:
        nodes = [o["spec"]["nodeName"] for o in await self._node_faults() if not restored(o)]
        return f"waiting for targets on {', '.join(sorted(set(nodes)))}" if nodes else ""

    async def _left(self) -> str:
        experiments, node_faults = await self._experiments(), await self._node_faults()
        parts = [
            f"{len(found)} {word}{'s' if len(found) > 1 else ''}"
            for found, word in ((experiments, "experiment"), (node_faults, "node fault"))
            if found
        ]
        return " and ".join(parts)

    async def _experiments(self) -> list[tuple[Resource, Object]]:
        where = self._reach.target_namespace or None
        return [
            (kind.resource, obj)
            for kind in kinds().values()
            for obj in await _listed(self._cluster, kind.resource, where)
        ]

    async def _node_faults(self) -> Sequence[Object]:
        return await _listed(self._cluster, NODE_FAULT, self._reach.namespace)


def restored(node_fault: Object) -> bool:
    """Say whether a node reports that nothing acts on its targets any more.

    Args:
        node_fault: as read from the API.
    """
    spec, status = node_fault["spec"], node_fault.get("status") or {}
    if spec.get("oneShot"):
        return True
    told = {(one["id"], one["selectorKey"]): one for one in status.get("targets") or ()}
    return all(
        told.get((one["id"], one["selectorKey"]), {"phase": ""})["phase"] == NOT_INJECTED
        for one in spec["targets"]
    )


async def _listed(cluster: Cluster, resource: Resource, namespace: str | None) -> Sequence[Object]:
    """List objects of a kind; none where it is not served."""
    try:
        return await cluster.list(resource, namespace)
    except NotFound:
        return ()
