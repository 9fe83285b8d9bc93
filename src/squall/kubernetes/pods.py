"""What injectors may ask about the Pod that is their target, by any Kubernetes API."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from squall.api.cluster import POD, ApiError, Cluster, Conflict, NotFound, Object
from squall.errors import TargetGone, TryAgain
from squall.injection.world.containers import Containers
from squall.injection.world.pods import PodState
from squall.injection.world.target import Target
from squall.kubernetes.embedded.pods_status import HELD_DOWN


class ClusterPods:
    """The Pods of a cluster: what is the same whatever makes one of them stand still."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def delete(self, target: Target, *, grace_seconds: int) -> None:
        """Delete this very pod; one of the same name that came later is left alone."""
        namespace, name = name_of(target)
        with answered(target):
            await self._cluster.delete(
                POD, namespace, name, uid=target.pod_uid, grace_seconds=grace_seconds
            )

    async def exists(self, target: Target) -> bool:
        """Is there a pod of this name and uid that is not being deleted?"""
        try:
            return "deletionTimestamp" not in (await self.read(target))["metadata"]
        except TargetGone:
            return False

    async def read(self, target: Target) -> Object:
        """Read this very pod.

        Raises:
            TargetGone: it is not there, or another one has its name.
            TryAgain: the API does not answer.
        """
        namespace, name = name_of(target)
        with answered(target):
            pod = await self._cluster.get(POD, namespace, name)
        if pod["metadata"]["uid"] != target.pod_uid:
            raise TargetGone(f"{target.id}: there is another pod of this name now")
        return pod


class FrozenPods(ClusterPods):
    """Implements `Pods` for an agent on the pod's node: its processes are frozen.

    The API is told to call it not ready, where it is one that runs Pods itself.
    """

    def __init__(self, cluster: Cluster, containers: Containers) -> None:
        super().__init__(cluster)
        self._containers = containers

    async def stop(self, target: Target) -> None:
        """Freeze every process, then let its readiness fail."""
        await self._containers.freeze(target)
        await self._hold_down(target, down=True)

    async def let_go(self, target: Target) -> None:
        """Thaw, and answer probes as before."""
        try:
            # First, since it needs no API: a target must thaw while that is away.
            await self._containers.thaw(target)
        finally:
            # Also of a pod whose container has ended: the next one must not begin as not ready.
            await self._hold_down(target, down=False)

    async def state(self, target: Target) -> PodState:
        """Ask the kernel about the processes, and the API about readiness."""
        frozen = await self._containers.frozen(target)
        try:
            return PodState(frozen, is_ready(await self.read(target)))
        except TargetGone:
            return PodState(frozen, ready=False)

    async def all_stopped(self) -> Sequence[Target]:
        """Find none: the marks are on cgroups, and the journal of the node names them."""
        return ()

    async def _hold_down(self, target: Target, *, down: bool) -> None:
        """Annotate the pod; whoever runs it reports it as not ready."""
        metadata = (await self.read(target))["metadata"]
        held = (metadata.get("annotations") or {}).get(HELD_DOWN) == "true"
        if held != down:
            namespace, name = name_of(target)
            annotations = {HELD_DOWN: "true" if down else None}
            with answered(target):
                await self._cluster.patch(
                    POD, namespace, name, {"metadata": {"annotations": annotations}}
                )


def is_ready(pod: Object) -> bool:
    """Does the API call a pod ready?"""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


@contextmanager
def answered(target: Target) -> Iterator[None]:
    """Turn what the API answers into what an injector knows.

    Raises:
        TargetGone: the pod is not there, or another one has its name.
        TryAgain: the API is away, or cannot do it now.
    """
    try:
        yield
    except (NotFound, Conflict) as gone:
        raise TargetGone(f"{target.id}: {gone}") from gone
    except ApiError as refused:
        raise TryAgain(f"{target.id}: {refused}") from refused


def name_of(target: Target) -> tuple[str, str]:
    """Split a record id into namespace and name of its pod."""
    namespace, name = target.id.split("/")[:2]
    return namespace, name
