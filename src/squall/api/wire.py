"""Values that read and write the camelCase names of the wire."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong between the fields of a value, each of which is right by itself."""

    field: str
    """JSON path below the value, as `value` or `delay.latency`; empty: the value as a whole."""
    message: str
    """What is wrong and what to do."""


class Wire(BaseModel):
    """A frozen value of a Kubernetes object; its docstrings become CRD descriptions."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        extra="ignore",
        # An agent knows every kind and meets few: half a megabyte for each room, and its start.
        defer_build=True,
    )

    def flaws(self) -> Iterator[Flaw]:
        """Check rules that span fields; each value inside this one is asked for its own."""
        yield from ()


class Fault(Wire):
    """What is done to one target: the agent's share of an experiment's spec."""


WRITTEN = "x-squall-written"
"""Marks a default in a model's JSON schema that belongs into the CRD and into stored objects."""


def written(default: str | int) -> Any:  # noqa: ANN401  (stands for a field of any type)
    """Give a field whose default is written into the object, as users of upstream expect it.

    Args:
        default: as on the wire.
    """
    return Field(default=default, validate_default=True, json_schema_extra={WRITTEN: True})
