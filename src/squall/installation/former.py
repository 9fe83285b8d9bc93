"""What a former version of an installation had and this one has not."""

from collections.abc import Sequence

from squall.api.cluster import NAMESPACE, ApiError, Cluster, NotFound, Object, Resource
from squall.api.metadata import PART_OF, SQUALL
from squall.installation.progress import Progress
from squall.installation.resources import (
    CUSTOM_RESOURCE_DEFINITION,
    STAGES,
    called,
    resource_of,
)
from squall.installation.standing import FORBIDDEN, MANAGED_BY, installations

_OURS = f"{PART_OF}={SQUALL},{MANAGED_BY}={SQUALL}"
"""Selects what `squall install` put in; Helm's objects say so, others have no such label."""


async def remove_former(
    cluster: Cluster, progress: Progress, namespace: str, wanted: Sequence[Object]
) -> int:
    """Remove what was put in for this installation and is not wanted any more.

    Definitions of kinds stay, since experiments would go with them, and so does what belongs to
    no namespace while another installation is there: nobody could say whose it is.

    Args:
        cluster: where.
        progress: is told what was removed, and which definitions stay.
        namespace: of the installation.
        wanted: every object of this version.

    Returns:
        How many objects were removed.
    """
    kept = {_key(resource_of(obj), obj) for obj in wanted}
    homes = {one["metadata"]["namespace"] for one in await installations(cluster)}
    alone, removed = homes <= {namespace}, 0
    for resource in (r for _, resources in reversed(STAGES) for r in resources):
        if resource == NAMESPACE or not (alone or resource.namespaced):
            continue
        for obj in await _listed(cluster, resource, namespace):
            name = called(resource, obj["metadata"]["name"])
            if _key(resource, obj) in kept:
                continue
            if resource == CUSTOM_RESOURCE_DEFINITION:
                progress.done(f"{name} stays, though this version serves no such kind")
                continue
            await _deleted(cluster, resource, obj)
            progress.done(f"{name} deleted: a former version had it")
            removed += 1
    return removed


def _key(resource: Resource, obj: Object) -> tuple[Resource, str]:
    return resource, obj["metadata"]["name"]


async def _listed(cluster: Cluster, resource: Resource, namespace: str) -> Sequence[Object]:
    labels = f"{PART_OF}={SQUALL}" if resource == CUSTOM_RESOURCE_DEFINITION else _OURS
    try:
        return await cluster.list(
            resource, namespace if resource.namespaced else None, labels=labels
        )
    except ApiError as refused:
        if refused.code not in {FORBIDDEN, 404}:
            raise
        return ()


async def _deleted(cluster: Cluster, resource: Resource, obj: Object) -> None:
    metadata = obj["metadata"]
    try:
        await cluster.delete(resource, metadata.get("namespace"), metadata["name"])
    except NotFound:
        return
