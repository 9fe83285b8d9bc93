from typing import Any, Literal

import pytest
from pydantic import Field

from squall.api.conformity import violations
from squall.api.schema import structural, with_defaults
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


def test_defaults_reach_every_object_that_is_there_and_make_none():
    given = {"kind": "oak", "leaves": [{}, {"colour": "red"}, {"colour": ""}], "odd": {"x": []}}
    assert with_defaults(SCHEMA, given) == {
        "kind": "oak",
        "leaves": [{"colour": "green"}, {"colour": "red"}, {"colour": "green"}],
        "odd": {"x": []},
    }
    assert given["leaves"][0] == {}


def test_how_deep_unknown_parts_nest_does_not_matter():
    deep: Any = {}
    for _ in range(5000):
        deep = {"x": deep}
    filled = with_defaults(SCHEMA, {"kind": "oak", "odd": deep, "firstLeaf": {"notes": deep}})
    assert not list(violations(SCHEMA, filled))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], 'tree: Invalid value: "array": must be of type object'),
        ({}, "tree.kind: Required value"),
        ({"kind": "fir"}, 'tree.kind: Unsupported value: "fir": supported values: "oak"'),
        ({"kind": 1}, "tree.kind: Invalid value: 1: must be of type string"),
        ({"kind": None}, "tree.kind: Invalid value: null: must be of type string"),
        (
            {"kind": "oak", "leaves": [{"size": 0}]},
            "tree.leaves[0].size: Invalid value: 0: should be greater than or equal to 1",
        ),
        (
            {"kind": "oak", "leaves": [{"size": True}]},
            "tree.leaves[0].size: Invalid value: true: must be of type integer",
        ),
        (
            {"kind": "oak", "leaves": [{"size": 2**63}]},
            f"tree.leaves[0].size: Invalid value: {2**63}: does not fit into 64 bits",
        ),
        (
            {"kind": "oak", "names": {"a b": 1}},
            "tree.names[a b]: Invalid value: 1: must be of type string",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_its_path(value, said):
    assert [str(cause) for cause in violations(SCHEMA, value, "tree")] == [said]


def test_every_violation_is_found():
    value = {"firstLeaf": {"size": "big"}, "leaves": 5, "names": {"a": []}}
    fields = {cause.field for cause in violations(SCHEMA, value)}
    assert fields == {"firstLeaf.size", "leaves", "names.a", "kind"}


def test_what_fits_is_accepted():
    value = {"kind": "oak", "leaves": [{"size": 3.0}], "names": {"a": "b"}, "odd": 1}
    assert not list(violations(SCHEMA, value))
