"""Values that read and write the camelCase names of the wire."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """A frozen value of a Kubernetes object; its docstrings become CRD descriptions."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        extra="ignore",
    )


class Fault(Wire):
    """What is done to one target: the agent's share of an experiment's spec."""
