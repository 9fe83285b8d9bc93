"""From what the API names to what runs here: containers, their processes, their incarnations."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Protocol

from squall.api.cluster import Change, Event, Object
from squall.api.metadata import STATIC
from squall.api.node_fault import NodeFaultTarget
from squall.errors import TargetGone, TryAgain
from squall.injection.world.target import Target
from squall.node.journal import Touched
from squall.node.notes import LaneKey

_PREFIX = re.compile(r"^[a-z0-9.-]+://")


class Processes(Protocol):
    """The processes of this node, found by the container they belong to."""

    async def resolve(self, container_ids: Collection[str]) -> Mapping[str, tuple[int, int]]:
        """Find the init process of containers through `/proc/*/cgroup` alone.

        Args:
            container_ids: 64 hexadecimal digits each, without the runtime's prefix.

        Returns:
            (pid, start time in clock ticks) by container id; what does not run is absent.
        """

    def in_pod(self, pid: int, uids: Collection[str]) -> bool:
        """May a process be one of a pod with one of these uids? The kernel says whose it is."""


class Finder(Protocol):
    """Resolves the targets of one agent."""

    by_api: bool
    """Are they touched through the API alone, so that a lost journal does no harm?"""

    def saw(self, event: Event) -> str:
        """Take in a change of a pod; returns its uid when its containers changed."""

    async def learn(self, container_ids: Iterable[str]) -> None:
        """Look processes up in one go, so that `find` need not."""

    def containers_of(self, pod_uid: str) -> tuple[str, ...]:
        """List the containers of a pod that its status calls running."""

    def forget(self, target: Target) -> None:
        """Drop what is remembered of a target that turned out to be gone."""

    async def find(self, key: LaneKey, container_id: str, *, host_network: bool) -> Target:
        """Resolve one target; raises `TargetGone`, or `TryAgain` while it is between two lives."""


def lane_key(kind: str, target: NodeFaultTarget) -> LaneKey:
    """Say which faults merge: those of one kind on one pod, or on one container of it.

    A container that was restarted is another target, a pod with a restarted container is not.
    """
    alone = target.id.count("/") == 2  # noqa: PLR2004  (namespace/pod/container)
    return LaneKey(kind, target.id, target.pod_uid, bare(target.container_id) if alone else "")


def bare(container_id: str) -> str:
    """Strip the runtime's prefix, as in `containerd://`."""
    return _PREFIX.sub("", container_id)


class Targets:
    """Resolves targets; remembers processes, since looking through all of them takes time.

    A remembered process may have ended: whoever uses it learns that by `TargetGone`, calls
    `forget`, and asks again.
    """

    by_api = False

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._found: dict[str, tuple[int, int]] = {}
        self._running: dict[str, tuple[str, ...]] = {}
        """Container ids by uid of every pod on this node, in the order of its status."""
        self._hashes: dict[str, str] = {}
        """Under which hash the kubelet knows a static pod, by the uid that the API knows it by."""

    def saw(self, event: Event) -> str:
        """Take in a change of a pod of this node; returns its uid when its containers changed."""
        if event.change is Change.SYNCED:
            return ""
        uid = str(event.object["metadata"]["uid"])
        before = self._running.get(uid)
        if event.change is Change.DELETED or _finished(event.object):
            self._running.pop(uid, None)
            self._hashes.pop(uid, None)
        else:
            self._running[uid] = _running(event.object)
            annotations = event.object["metadata"].get("annotations") or {}
            if STATIC in annotations:
                self._hashes[uid] = str(annotations[STATIC])
        now = self._running.get(uid)
        for ended in set(before or ()) - set(now or ()):
            self._found.pop(ended, None)
        return uid if now != before else ""

    async def learn(self, container_ids: Iterable[str]) -> None:
        """Look processes up in one go, so that `find` need not."""
        wanted = {id_ for id_ in container_ids if id_ and id_ not in self._found}
        if wanted:
            self._found.update(await self._processes.resolve(wanted))

    def containers_of(self, pod_uid: str) -> tuple[str, ...]:
        """List the containers of a pod that its status calls running."""
        return self._running.get(pod_uid, ())

    def forget(self, target: Target) -> None:
        """Drop what is remembered of a process that turned out to be gone."""
        self._found.pop(target.container_id, None)

    async def find(self, key: LaneKey, container_id: str, *, host_network: bool) -> Target:
        """Resolve one target.

        Args:
            key: which one.
            container_id: the container it was last known by, without prefix; may be empty.
            host_network: does its pod share the network of this node?

        Raises:
            TargetGone: nothing of it runs here, nor will again.
            TryAgain: the pod is here, but no container of it runs just now.
        """
        candidates = [container_id]
        if not key.container:
            candidates = [*self.containers_of(key.pod_uid), container_id]
        await self.learn(candidates)
        for candidate in candidates:
            if process := self._found.get(candidate):
                names = (key.pod_uid, self._hashes.get(key.pod_uid, key.pod_uid))
                # Who may write the status of a pod may name any container in it.
                if not self._processes.in_pod(process[0], names):
                    raise TargetGone(
                        f"{key.target}: container {candidate[:12]} is in the cgroup of another pod"
                    )
                return Target(key.target, key.pod_uid, candidate, *process, host_network)
        if key.pod_uid in self._running and (not key.container or not container_id):
            raise TryAgain(f"{key.target}: no container of the pod runs just now; waiting for it")
        raise TargetGone(f"{key.target}: no process of container {container_id[:12]} runs here")


def last_known(touched: Touched) -> Target:
    """Build a target from the journal, to take back what was done to it outside its processes."""
    return Target(
        touched.key.target,
        touched.key.pod_uid,
        touched.container_id,
        touched.pid,
        touched.started,
        touched.host_network,
    )


def _finished(pod: Object) -> bool:
    """Will no container of it run again?"""
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def _running(pod: Object) -> tuple[str, ...]:
    return tuple(
        bare(status["containerID"])
        for status in _statuses(pod)
        if status.get("containerID") and "running" in (status.get("state") or {"running": {}})
    )


def container_ids(pod: Object) -> tuple[str, ...]:
    """List the ids of every container that its status names, without prefix.

    Running or not, and the one before it: a fault may have been ordered before a restart that this
    agent has not seen.
    """
    before = (
        (s.get("lastState") or {}).get("terminated", {}).get("containerID") for s in _statuses(pod)
    )
    named = (*(s.get("containerID") for s in _statuses(pod)), *before)
    return tuple(bare(id_) for id_ in named if id_)


def _statuses(pod: Object) -> Iterator[Object]:
    """Those of its own containers first; sidecars are among those of init containers."""
    status = pod.get("status") or {}
    for of in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        yield from status.get(of) or ()
