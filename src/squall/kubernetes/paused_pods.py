"""Pods of a cluster that stand still because their containers run the pause image."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Any

from squall.api.cluster import POD, ApiError, Change, Cluster, Conflict, Object
from squall.api.metadata import STOPPED
from squall.errors import TryAgain, Unsupported
from squall.injection.world.pods import PodState
from squall.injection.world.target import Target
from squall.kubernetes.pausing import is_marked, letting_go, stopped, stopping, version
from squall.kubernetes.pods import ClusterPods, answered, is_ready, name_of

TRIES = 5
"""Whoever writes the pod between our reading and our writing makes us read again, so often."""

_REFUSED = (403, 422)


class PausedPods(ClusterPods):
    """Implements `Pods` by the API alone: the kubelet replaces containers whose image changes.

    The pod itself is the memory: a label says that we stopped it, annotations in upstream's
    shape keep the images it had, and all of that is one write. Pods with the label are followed,
    and what was read is kept until it is written, so that most changes cost one request.

    Args:
        cluster: the API.
        pause_image: what containers run that shall do nothing.
        target_namespace: the only one whose pods may be read; empty: any.
        last_seen: gives a pod by namespace and name, at no cost and maybe outdated; None where it
            is not known.
    """

    def __init__(
        self,
        cluster: Cluster,
        pause_image: str,
        target_namespace: str = "",
        last_seen: Callable[[str, str], Object | None] = lambda _namespace, _name: None,
    ) -> None:
        super().__init__(cluster)
        self._last_seen = last_seen
        self._pause_image = pause_image
        self._target_namespace = target_namespace or None
        self._reading: dict[str, asyncio.Task[Object]] = {}
        self._known: dict[str, Object] = {}
        """By uid: pods that stand still, as they were last seen; empty unless they are followed."""
        self._follows = False
        self._written: dict[str, int] = {}
        """By uid: versions that we wrote and others may not have seen yet."""

    async def follow(self) -> None:
        """Follow the pods that stand still, until cancelled.

        Raises:
            ApiError: the API does not let us.
        """
        where, label = self._target_namespace, f"{STOPPED}=true"
        try:
            async with aclosing(self._cluster.watch(POD, where, labels=label)) as events:
                async for event in events:
                    self._follows = True
                    if event.change is Change.DELETED:
                        self._forget(event.object["metadata"])
                    elif event.change is not Change.SYNCED:
                        self._saw(event.object)
        finally:
            self._follows = False
            self._known.clear()

    async def read(self, target: Target) -> Object:
        """Read a pod; who asks while somebody else does, or gave up asking, shares the answer."""
        uid = target.pod_uid
        reading = self._reading.get(uid)
        if reading is None:
            reading = self._reading[uid] = asyncio.create_task(super().read(target))
            reading.add_done_callback(lambda done: self._was_read(uid, done))
        return await asyncio.shield(reading)

    async def stop(self, target: Target) -> None:
        """Give every container the pause image; `Unsupported` where it could not be undone."""
        await self._change(target, self._stopping)

    async def let_go(self, target: Target) -> None:
        """Give containers their images back, but for those that somebody has changed since."""
        await self._change(target, letting_go)

    async def state(self, target: Target) -> PodState:
        """See what the kubelet says that runs."""
        pod = self._known.get(target.pod_uid) or self._seen(target) or await self.read(target)
        return PodState(stopped(pod), is_ready(pod))

    async def all_stopped(self) -> Sequence[Target]:
        """Find the pods with our label, by one question."""
        try:
            pods = await self._cluster.list(POD, self._target_namespace, labels=f"{STOPPED}=true")
        except ApiError as refused:
            raise TryAgain(f"nobody can tell which pods stand still: {refused}") from refused
        return [
            Target(f"{meta['namespace']}/{meta['name']}", meta["uid"], "", 0, 0)
            for meta in (pod["metadata"] for pod in pods)
        ]

    async def _change(
        self, target: Target, decide: Callable[[Target, Object], dict[str, Any] | None]
    ) -> None:
        """Decide and write, on condition that nobody wrote in between."""
        for attempt in range(TRIES):
            pod, patch = await self._decided(target, decide, first=attempt == 0)
            if patch is None:
                return
            patch["metadata"]["resourceVersion"] = pod["metadata"]["resourceVersion"]
            try:
                with answered(target), _allowed(target):
                    written = await self._cluster.patch(POD, *name_of(target), patch)
            except _Outrun:
                continue
            self._written[target.pod_uid] = version(written)
            # The watch is later than our own writes; one that it does not follow any more is not
            # kept, or it would be for ever.
            if self._follows and (is_marked(written) or target.pod_uid in self._known):
                self._saw(written)
            return
        raise TryAgain(f"{target.id}: somebody else keeps changing the pod")

    async def _decided(
        self,
        target: Target,
        decide: Callable[[Target, Object], dict[str, Any] | None],
        *,
        first: bool,
    ) -> tuple[Object, dict[str, Any] | None]:
        """Decide, at first by what others have seen of the pod.

        If that is outdated, the write is refused. So only a write may follow from it: that there is
        nothing to do, or that nothing can be done, is believed of a pod that was read.
        """
        if first and (pod := self._known.get(target.pod_uid)):
            return pod, decide(target, pod)
        if first and (pod := self._seen(target)):
            with suppress(TryAgain, Unsupported):
                if patch := decide(target, pod):
                    return pod, patch
        pod = await self.read(target)
        return pod, decide(target, pod)

    def _seen(self, target: Target) -> Object | None:
        """Give what others last saw of this very pod, unless we wrote it after that."""
        pod = self._last_seen(*name_of(target))
        if pod is None or pod["metadata"]["uid"] != target.pod_uid:
            return None
        if version(pod) < self._written.get(target.pod_uid, 0):
            return None
        self._written.pop(target.pod_uid, None)
        return pod

    def _saw(self, pod: Object) -> None:
        """Keep a pod unless a newer version is known (versions are numbers: KEP-5504)."""
        uid = pod["metadata"]["uid"]
        known = self._known.get(uid)
        if known is None or version(known) <= version(pod):
            self._known[uid] = pod

    def _forget(self, metadata: Mapping[str, Any]) -> None:
        """Drop a pod that has no label any more, or is no more."""
        self._known.pop(metadata["uid"], None)
        if metadata.get("deletionTimestamp"):
            self._written.pop(metadata["uid"], None)

    def _was_read(self, uid: str, reading: asyncio.Task[Object]) -> None:
        self._reading.pop(uid, None)
        if not reading.cancelled():
            reading.exception()  # nobody may wait for it any more

    def _stopping(self, target: Target, pod: Object) -> dict[str, Any] | None:
        return stopping(target, pod, self._pause_image)


class _Outrun(Exception):
    """Somebody wrote the pod after we read it."""


@contextmanager
def _allowed(target: Target) -> Iterator[None]:
    """Tell a pod that changed, and one that the API lets nobody change, from one that is gone."""
    try:
        yield
    except Conflict as outrun:
        raise _Outrun from outrun
    except ApiError as refused:
        if refused.code not in _REFUSED:
            raise
        raise Unsupported(f"{target.id}: its images cannot be changed: {refused}") from refused
