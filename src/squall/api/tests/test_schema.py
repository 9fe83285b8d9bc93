from typing import Any, Literal

from pydantic import Field

from squall.api.schema import structural
from squall.api.wire import Wire, written


class Leaf(Wire):
    """A leaf."""

    size: int | None = Field(default=None, ge=1)
    """How large
    it is."""
    colour: Literal["red", "green"] = written("green")
    """What it looks like."""
    notes: dict[str, Any] = Field(default_factory=dict)


class Tree(Wire):
    """A tree."""

    first_leaf: Leaf | None = None
    """The one that came first."""
    leaves: list[Leaf] = Field(default_factory=list)
    names: dict[str, str] = Field(default_factory=dict)
    kind: Literal["oak"]


SCHEMA = structural(Tree)


def test_a_schema_is_structural_and_speaks_with_the_words_of_the_docstrings():
    leaf = {
        "type": "object",
        "description": "A leaf.",
        "properties": {
            "size": {"type": "integer", "minimum": 1, "description": "How large it is."},
            "colour": {
                "type": "string",
                "enum": ["red", "green"],
                "default": "green",
                "description": "What it looks like.",
            },
            "notes": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
            },
        },
    }
    assert {
        "type": "object",
        "description": "A tree.",
        "required": ["kind"],
        "properties": {
            "firstLeaf": leaf | {"description": "The one that came first."},
            "leaves": {"type": "array", "items": leaf},
            "names": {"type": "object", "additionalProperties": {"type": "string"}},
            "kind": {"type": "string", "enum": ["oak"]},
        },
    } == SCHEMA
