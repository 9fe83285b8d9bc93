from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.kubernetes.embedded.schema_check import drop_nulls, fill_defaults, problems, prune

SCHEMA = {
    "type": "object",
    "required": ["mode"],
    "properties": {
        "mode": {"type": "string", "enum": ["one", "all"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "share": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
        "size": {"x-kubernetes-int-or-string": True},
        "on": {"type": "boolean", "default": True},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "maybe": {"type": "string", "nullable": True},
        "parts": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "items": {"type": "object", "properties": {"id": {"type": "string"}}},
        },
    },
}


@pytest.mark.parametrize(
    ("value", "field", "reason"),
    [
        ({}, "mode", "FieldValueRequired"),
        ({"mode": "some"}, "mode", "FieldValueNotSupported"),
        ({"mode": 1}, "mode", "FieldValueTypeInvalid"),
        ({"mode": "one", "count": 0}, "count", "FieldValueInvalid"),
        ({"mode": "one", "count": 10}, "count", "FieldValueInvalid"),
        ({"mode": "one", "count": True}, "count", "FieldValueTypeInvalid"),
        ({"mode": "one", "count": 1.5}, "count", "FieldValueTypeInvalid"),
        ({"mode": "one", "share": 0}, "share", "FieldValueInvalid"),
        ({"mode": "one", "name": "A"}, "name", "FieldValueInvalid"),
        ({"mode": "one", "name": "aaaa"}, "name", "FieldValueInvalid"),
        ({"mode": "one", "size": 1.5}, "size", "FieldValueTypeInvalid"),
        ({"mode": "one", "labels": {"a": 1}}, "labels.a", "FieldValueTypeInvalid"),
        ({"mode": "one", "parts": []}, "parts", "FieldValueInvalid"),
        ({"mode": "one", "parts": [{}, {}, {}]}, "parts", "FieldValueTooMany"),
        ({"mode": "one", "parts": [{"id": 1}]}, "parts[0].id", "FieldValueTypeInvalid"),
        ({"mode": None}, "mode", "FieldValueTypeInvalid"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(value, field, reason):
    found = [(cause.field, cause.reason) for cause in problems(SCHEMA, value)]
    assert found == [(field, reason)]


@pytest.mark.parametrize(
    "value",
    [
        {"mode": "one"},
        {"mode": "all", "count": 1.0, "size": "50%", "maybe": None},
        {"mode": "all", "size": 5, "free": {"a": [{"b": None}]}, "labels": {"x": ""}},
    ],
)
def test_what_fits_is_let_through(value):
    assert problems(SCHEMA, value) == []


def test_unknown_fields_are_pruned_where_nothing_keeps_them():
    value = {"mode": "one", "typo": 1, "free": {"kept": 1}, "parts": [{"id": "a", "gone": 1}]}
    assert prune(SCHEMA, value) == ["typo", "parts[0].gone"]
    assert value == {"mode": "one", "free": {"kept": 1}, "parts": [{"id": "a"}]}


def test_absent_fields_get_their_defaults_and_present_ones_keep_theirs():
    for given_, result in (({}, True), ({"on": False}, False), ({"on": None}, True)):
        fill_defaults(SCHEMA, given_)
        assert given_["on"] is result


def test_null_means_absent_unless_the_schema_allows_it():
    value = {"mode": None, "maybe": None, "parts": [{"id": None}]}
    drop_nulls(SCHEMA, value)
    assert value == {"maybe": None, "parts": [{}]}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(sorted(SCHEMA["properties"])) | st.text(max_size=2), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@given(values)
def test_any_value_is_judged_and_pruning_twice_is_once(value):
    prune(SCHEMA, value)
    once = deepcopy(value)
    assert prune(SCHEMA, value) == []
    assert value == once
    problems(SCHEMA, value)
