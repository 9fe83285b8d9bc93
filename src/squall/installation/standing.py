"""What stands in a cluster before anything is put in: other people's kinds, other installations."""

from collections.abc import Sequence

from squall.api.cluster import ApiError, Cluster, NotFound, Object
from squall.api.metadata import PART_OF, SQUALL
from squall.errors import Unsupported
from squall.installation.resources import CUSTOM_RESOURCE_DEFINITION, DEPLOYMENT

MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
NAME = "app.kubernetes.io/name"
HELM = "Helm"
CONTROLLER = "controller"
CONTROLLERS = f"{NAME}={SQUALL},{COMPONENT}={CONTROLLER}"
"""Selects the Deployment of every installation, helm's too."""
FORBIDDEN = 403


async def foreign_definitions(cluster: Cluster, wanted: Sequence[Object]) -> list[str]:
    """Name the definitions that are there under our names and are not ours.

    Args:
        cluster: where to look.
        wanted: the definitions that are about to be put in.
    """
    found = []
    for obj in wanted:
        name = obj["metadata"]["name"]
        try:
            there = await cluster.get(CUSTOM_RESOURCE_DEFINITION, None, name)
        except NotFound:
            continue
        if (there["metadata"].get("labels") or {}).get(PART_OF) != SQUALL:
            found.append(name)
    return found


async def installations(cluster: Cluster) -> list[Object]:
    """Give the controller Deployment of every installation; none where that may not be read."""
    try:
        return await cluster.list(DEPLOYMENT, labels=CONTROLLERS)
    except ApiError as refused:
        if refused.code != FORBIDDEN:
            raise
        return []


async def check_installer(cluster: Cluster, namespace: str) -> None:
    """Refuse where Helm keeps this installation.

    Raises:
        Unsupported: it does; says which command to use.
    """
    for found in await installations(cluster):
        labels = found["metadata"]["labels"]
        if found["metadata"]["namespace"] == namespace and labels.get(MANAGED_BY) == HELM:
            release = labels.get("app.kubernetes.io/instance", SQUALL)
            raise Unsupported(
                f"the installation in namespace {namespace} is kept by Helm: use "
                f"`helm upgrade {release} --namespace {namespace}` or `helm uninstall {release} "
                f"--namespace {namespace}`"
            )
