"""What injectors may ask about the Pod that is their target, by any Kubernetes API."""

from collections.abc import Iterator
from contextlib import contextmanager

from squall.api.cluster import POD, ApiError, Cluster, Conflict, NotFound
from squall.errors import TargetGone, TryAgain
from squall.injection.world.target import Target
from squall.kubernetes.embedded.pods_status import HELD_DOWN


class ClusterPods:
    """Implements `Pods` by the API that the agent talks to."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def delete(self, target: Target, *, grace_seconds: int) -> None:
        """Delete this very pod; one of the same name that came later is left alone."""
        namespace, name = _name(target)
        with _answered(target):
            await self._cluster.delete(
                POD, namespace, name, uid=target.pod_uid, grace_seconds=grace_seconds
            )

    async def exists(self, target: Target) -> bool:
        """Is there a pod of this name and uid that is not being deleted?"""
        namespace, name = _name(target)
        try:
            with _answered(target):
                metadata = (await self._cluster.get(POD, namespace, name))["metadata"]
        except TargetGone:
            return False
        return metadata["uid"] == target.pod_uid and "deletionTimestamp" not in metadata

    async def ready(self, target: Target) -> bool:
        """Does the API call this very pod ready?"""
        namespace, name = _name(target)
        try:
            with _answered(target):
                pod = await self._cluster.get(POD, namespace, name)
        except TargetGone:
            return False
        conditions = (pod.get("status") or {}).get("conditions") or ()
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        return ready and pod["metadata"]["uid"] == target.pod_uid

    async def hold_down(self, target: Target, *, down: bool) -> None:
        """Annotate the pod; whoever runs it reports it as not ready."""
        namespace, name = _name(target)
        with _answered(target):
            metadata = (await self._cluster.get(POD, namespace, name))["metadata"]
            if metadata["uid"] != target.pod_uid:
                raise TargetGone(f"{target.id}: there is another pod of this name now")
            held = (metadata.get("annotations") or {}).get(HELD_DOWN) == "true"
            if held != down:
                annotations = {HELD_DOWN: "true" if down else None}
                await self._cluster.patch(
                    POD, namespace, name, {"metadata": {"annotations": annotations}}
                )


@contextmanager
def _answered(target: Target) -> Iterator[None]:
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


def _name(target: Target) -> tuple[str, str]:
    namespace, name = target.id.split("/")[:2]
    return namespace, name
