"""What an API server must know of a kind to serve it: schema, columns, defaults, rules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from squall.api.cluster import Object, Resource

Schema = dict[str, Any]
"""A structural OpenAPI v3 schema, as in a CustomResourceDefinition."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why an object is refused, as in the details of a Kubernetes Status."""

    field: str
    """JSON path, as `spec.delay.latency` or `spec.externalTargets[0]`."""
    reason: str
    """FieldValueRequired, FieldValueInvalid, FieldValueNotSupported, FieldValueTypeInvalid..."""
    message: str
    """As `Invalid value: "soon": is not a duration; write it as 10ms, 1.5s or 2h45m`."""

    def __str__(self) -> str:
        """Path and message, as kubectl shows them."""
        return f"{self.field}: {self.message}"


@dataclass(frozen=True, slots=True)
class Column:
    """One column that `kubectl get` shows."""

    name: str
    path: str
    """JSON path of the value, as `.spec.duration`."""
    type: str = "string"
    """string, integer, number, boolean or date (shown as an age)."""


AGE = Column("Age", ".metadata.creationTimestamp", "date")


@dataclass(frozen=True, slots=True)
class ServedKind:
    """One kind, ready to be served by the embedded API or written as a CRD."""

    resource: Resource
    schema: Schema
    """Of the whole object: apiVersion, kind, metadata, spec, status."""
    default: Callable[[Object], Object]
    """Gives a copy with defaults filled in; what has the wrong type is left for `validate`."""
    validate: Callable[[Object, Object | None], list[Cause]]
    """(object with defaults, object before or None) -> every reason to refuse; never raises."""
    columns: tuple[Column, ...] = (AGE,)
    """After the name, which is always the first."""
    status: bool = True
    """Is there a status subresource?"""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    """`kubectl get CATEGORY` lists all kinds in it."""
    fields: tuple[str, ...] = ()
    """JSON paths that field selectors may use, beside metadata.name and metadata.namespace."""
