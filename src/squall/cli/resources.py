"""Kinds by the names people type."""

from squall.api.cluster import HALT, NODE, NODE_FAULT, POD, WORKLOAD, Object, Resource
from squall.errors import InvalidFault
from squall.faults import kinds


def resource_of(obj: Object) -> Resource:
    """Find the resource of a manifest's object.

    Raises:
        InvalidFault: no such kind is served.
    """
    for resource in _known():
        if (resource.api_version, resource.kind) == (obj["apiVersion"], obj["kind"]):
            return resource
    raise InvalidFault(
        f"{obj['apiVersion']} {obj['kind']} is not served; there are: "
        + ", ".join(resource.kind for resource in _known())
    )


def resource_named(name: str) -> Resource:
    """Find a resource by kind or plural, in any case.

    Raises:
        InvalidFault: no such kind is served.
    """
    for resource in _known():
        if name.lower() in {resource.kind.lower(), resource.plural}:
            return resource
    raise InvalidFault(
        f"there is no kind {name!r}; there are: "
        + ", ".join(resource.plural for resource in _known())
    )


def _known() -> list[Resource]:
    return [*(kind.resource for kind in kinds().values()), POD, NODE, WORKLOAD, NODE_FAULT, HALT]
