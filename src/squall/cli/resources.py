"""Kinds by the names people type, and the fields that each has."""

from copy import deepcopy
from functools import cache

from squall.api.cluster import HALT, NODE, NODE_FAULT, POD, WORKLOAD, Object, Resource
from squall.api.crd import own_kinds, served_experiment
from squall.api.schema_check import prune
from squall.api.served import Schema
from squall.errors import InvalidFault
from squall.faults import kinds

_NOT_ASKED = frozenset({"apiVersion", "kind", "metadata", "status"})
"""What of an object is no wish of its author."""


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


def refuse_unknown_fields(obj: Object) -> None:
    """Check that an object says nothing that its kind has no field for.

    An API server drops such a field without a word, unless it is told not to; a selector whose key
    is misspelt then means every pod.

    Raises:
        InvalidFault: it does; names every such field.
    """
    schema = _schemas().get((obj["apiVersion"], obj["kind"]), {})
    said = deepcopy({name: obj[name] for name in obj if name not in _NOT_ASKED})
    if unknown := prune(schema, said):
        fields = ", ".join(unknown)
        raise InvalidFault(
            f"{obj['kind']}/{obj['metadata'].get('name', '')}: there is no field {fields}; "
            "capitals count, and the reference lists all that there are"
        )


@cache
def _schemas() -> dict[tuple[str, str], Schema]:
    own = own_kinds()
    experiments = (served_experiment(kind.resource, kind.spec) for kind in kinds().values())
    return {
        (served.resource.api_version, served.resource.kind): served.schema
        for served in (*experiments, *own)
    }


def _known() -> list[Resource]:
    return [*(kind.resource for kind in kinds().values()), POD, NODE, WORKLOAD, NODE_FAULT, HALT]
