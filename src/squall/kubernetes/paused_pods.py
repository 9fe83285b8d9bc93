"""Pods of a cluster that stand still because their containers run the pause image."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from hashlib import sha256
from typing import Any

from squall.api.cluster import POD, ApiError, Change, Cluster, Conflict, Object
from squall.api.metadata import PAUSED_WITH, STOPPED
from squall.errors import TryAgain, Unsupported
from squall.injection.world.pods import PodState
from squall.injection.world.target import Target
from squall.kubernetes.pods import ClusterPods, answered, is_ready, name_of

TRIES = 5
"""Whoever writes the pod between our reading and our writing makes us read again, so often."""

_OURS = "chaos-mesh-squall-pod-failure-"
_FOREIGN = ("-normal-image", "-init-image")
_MIRROR = "kubernetes.io/config.mirror"
_LONGEST_KEY = 63
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
    """

    def __init__(self, cluster: Cluster, pause_image: str, target_namespace: str = "") -> None:
        super().__init__(cluster)
        self._pause_image = pause_image
        self._target_namespace = target_namespace or None
        self._reading: dict[str, asyncio.Task[Object]] = {}
        self._known: dict[str, Object] = {}
        """By uid: pods that stand still, as they were last seen; empty unless they are followed."""
        self._follows = False

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
                        self._known.pop(event.object["metadata"]["uid"], None)
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
        await self._change(target, _letting_go)

    async def state(self, target: Target) -> PodState:
        """See what the kubelet says that runs."""
        pod = self._known.get(target.pod_uid) or await self.read(target)
        return PodState(_stopped(pod), is_ready(pod))

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
        """Read, decide and write, on condition that nobody wrote in between."""
        for attempt in range(TRIES):
            known = self._known.get(target.pod_uid) if attempt == 0 else None
            pod = known or await self.read(target)
            patch = decide(target, pod)
            if patch is None:
                return
            patch["metadata"]["resourceVersion"] = pod["metadata"]["resourceVersion"]
            try:
                with answered(target), _allowed(target):
                    written = await self._cluster.patch(POD, *name_of(target), patch)
            except _Outrun:
                continue
            # The watch is later than our own writes; one that it does not follow any more is not
            # kept, or it would be for ever.
            if self._follows and (_is_marked(written) or target.pod_uid in self._known):
                self._saw(written)
            return
        raise TryAgain(f"{target.id}: somebody else keeps changing the pod")

    def _saw(self, pod: Object) -> None:
        """Keep a pod unless a newer version is known (versions are numbers: KEP-5504)."""
        uid = pod["metadata"]["uid"]
        known = self._known.get(uid)
        if known is None or _version(known) <= _version(pod):
            self._known[uid] = pod

    def _was_read(self, uid: str, reading: asyncio.Task[Object]) -> None:
        self._reading.pop(uid, None)
        if not reading.cancelled():
            reading.exception()  # nobody may wait for it any more

    def _stopping(self, target: Target, pod: Object) -> dict[str, Any] | None:
        notes, spec = _notes(pod), pod["spec"]
        if why := _why_not(pod):
            raise Unsupported(f"{target.id} {why}")
        if held := next((key for key in notes if _is_foreign(key)), ""):
            raise TryAgain(f"{target.id}: Chaos Mesh holds the pod down ({held}); waiting for it")
        pause = notes.get(PAUSED_WITH) or self._pause_image
        kept: dict[str, str | None] = {PAUSED_WITH: pause}
        for container, key in _replaced(spec):
            # An image that is not ours was set by its owner, before the fault or during it.
            if key not in notes or container.get("image") != pause:
                kept[key] = container.get("image", "")
        if notes.items() >= kept.items() and _is_marked(pod):
            return None
        return _patch(spec, {STOPPED: "true"}, kept, lambda _container, _key: pause)


def _letting_go(_: Target, pod: Object) -> dict[str, Any] | None:
    notes = _notes(pod)
    ours = [key for key in notes if key.startswith(_OURS) or key == PAUSED_WITH]
    if not ours and not _is_marked(pod):
        return None
    pause = notes.get(PAUSED_WITH)

    def image(container: Mapping[str, Any], key: str) -> str:
        current = str(container.get("image", ""))
        return notes.get(key, current) if current == pause else current

    return _patch(pod["spec"], {STOPPED: None}, dict.fromkeys(ours), image)


def _patch(
    spec: Mapping[str, Any],
    labels: Mapping[str, str | None],
    notes: Mapping[str, str | None],
    image: Callable[[Mapping[str, Any], str], str],
) -> dict[str, Any]:
    """Write both lists whole, as a merge patch must; all but images is as it was read."""
    keys = {container["name"]: key for container, key in _replaced(spec)}
    return {
        "metadata": {"labels": dict(labels), "annotations": dict(notes)},
        "spec": {
            kind: [
                one | {"image": image(one, keys[one["name"]])} if one["name"] in keys else one
                for one in spec[kind]
            ]
            for kind in ("initContainers", "containers")
            if spec.get(kind)
        },
    }


def _replaced(spec: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Give the containers that stand still in a stopped pod, each with the key of its image.

    Init containers that have ended are left out: nobody would feel it, and one that had to run
    again with the pause image would never end, nor would a kubelet replace it
    (pkg/kubelet/kuberuntime/kuberuntime_container.go, computeInitContainerActions).
    """
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            yield container, image_key(container["name"], "init")
    for container in spec.get("containers") or ():
        yield container, image_key(container["name"], "normal")


def image_key(container: str, sort: str) -> str:
    """Name the annotation that keeps a container's image.

    Upstream's has the name of the experiment where ours has `squall`: any number of experiments
    share the first image. A name that would be too long is replaced by its digest.
    """
    room = _LONGEST_KEY - len(f"{_OURS}-{sort}-image")
    name = container if len(container) <= room else sha256(container.encode()).hexdigest()[:room]
    return f"{_OURS}{name}-{sort}-image"


def _is_foreign(key: str) -> bool:
    return key.startswith("chaos-mesh-") and key.endswith(_FOREIGN) and not key.startswith(_OURS)


def _why_not(pod: Object) -> str:
    if _MIRROR in _notes(pod):
        return "is a static pod: its containers are what a file on its node says, not the API"
    if pod["spec"].get("restartPolicy") == "Never":
        return (
            "has restartPolicy Never: what its containers were doing would be lost, and one that "
            "cannot run the pause image would end the pod for good"
        )
    return ""


def _stopped(pod: Object) -> bool | None:
    pause = _notes(pod).get(PAUSED_WITH)
    if pause is None or not _is_marked(pod):
        return False
    status = pod.get("status") or {}
    said = {
        one["name"]: one
        for kind in ("initContainerStatuses", "containerStatuses")
        for one in status.get(kind) or ()
    }
    answered_all = True
    for container, _ in _replaced(pod["spec"]):
        if container.get("image") != pause:
            return False
        one = said.get(container["name"])
        answered_all = answered_all and one is not None and _stands(one, pause)
    return True if answered_all else None


def _stands(status: Mapping[str, Any], pause: str) -> bool:
    """Does nothing of a container run, or only the pause image, as a runtime names it?"""
    if "running" not in (status.get("state") or {}):
        return bool(status.get("state"))
    if "@" in pause:
        return pause.partition("@")[2] in str(status.get("imageID", ""))
    name = pause if ":" in pause.rpartition("/")[2] else f"{pause}:latest"
    said = str(status.get("image", ""))
    return said in {name, pause} or said.endswith(f"/{name}")


def _notes(pod: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = pod["metadata"].get("annotations") or {}
    return found


def _version(pod: Object) -> int:
    return int(pod["metadata"]["resourceVersion"])


def _is_marked(pod: Object) -> bool:
    return (pod["metadata"].get("labels") or {}).get(STOPPED) == "true"


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
