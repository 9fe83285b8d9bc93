from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.api.schema_check import drop_nulls, problems, prune, with_defaults
from squall.api.served import Cause

SCHEMA = {
    "type": "object",
    "required": ["mode"],
    "properties": {
        "mode": {"type": "string", "enum": ["one", "all"]},
        "level": {"type": "integer", "enum": [1, 2]},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "share": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 100},
        "seed": {"type": "integer", "format": "int64"},
        "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 3},
        "at": {"type": "string", "format": "date-time"},
        "size": {"x-kubernetes-int-or-string": True},
        "on": {"type": "boolean", "default": True},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "maybe": {"type": "string", "nullable": True},
        "parts": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string"},
                    "colour": {"type": "string", "default": "red"},
                },
            },
        },
    },
}


REASONS = {
    "Required": "FieldValueRequired",
    "Unsupported": "FieldValueNotSupported",
    "Invalid": "FieldValueInvalid",
    "Too many": "FieldValueTooMany",
    "Too long": "FieldValueTooLong",
}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"mode": "some"}, 'mode: Unsupported value: "some": supported values: "one", "all"'),
        ({"level": 3}, 'level: Unsupported value: 3: supported values: "1", "2"'),
        ({"count": 0}, "count: Invalid value: 0: {} should be greater than or equal to 1"),
        ({"count": 10}, "count: Invalid value: 10: {} should be less than or equal to 9"),
        ({"share": 0}, "share: Invalid value: 0: {} should be greater than 0"),
        ({"share": 3e6}, "share: Invalid value: 3e+06: {} should be less than or equal to 100"),
        ({"share": -0.25}, "share: Invalid value: -0.25: {} should be greater than 0"),
        ({"name": "a"}, 'name: Invalid value: "a": {} should be at least 2 chars long'),
        ({"name": "A\x00"}, """name: Invalid value: "A\\x00": {} should match '^[a-z]+$'"""),
        ({"name": "ab\n"}, """name: Invalid value: "ab\\n": {} should match '^[a-z]+$'"""),
        ({"name": "aaaa"}, "name: Too long: may not be more than 3 bytes"),
        ({"parts": []}, "parts: Invalid value: 0: {} should have at least 1 items"),
        ({"parts": [{}, {}, {}]}, "parts: Too many: 3: must have at most 2 items"),
    ],
)
def test_what_does_not_fit_is_refused_in_the_words_of_an_api_server(value, said):
    (cause,) = problems(SCHEMA, {"mode": "one"} | value)
    assert str(cause) == said.format(f"{cause.field} in body")
    assert cause.reason == next(r for word, r in REASONS.items() if cause.message.startswith(word))


@pytest.mark.parametrize(
    ("value", "field", "found", "wanted"),
    [
        ({"count": 1.5}, "count", "number", "integer"),
        ({"count": True}, "count", "boolean", "integer"),
        ({"count": "1"}, "count", "string", "integer"),
        ({"seed": 2**63}, "seed", "number", "integer"),
        ({"seed": -(2**63) - 1}, "seed", "number", "integer"),
        ({"seed": 2.0**53}, "seed", "number", "integer"),
        ({"size": 1.5}, "size", "number", "integer,string"),
        ({"at": "2026-01-01"}, "at", "2026-01-01", "date-time"),
        ({"at": "2026-02-30T12:00:00Z"}, "at", "2026-02-30T12:00:00Z", "date-time"),
        ({"at": 5}, "at", "integer", "string"),
        ({"labels": []}, "labels", "array", "object"),
        ({"labels": {"a b": 1}}, "labels.a b", "integer", "string"),
        ({"parts": [None]}, "parts[0]", "null", "object"),
        ({"parts": [{"id": 1}]}, "parts[0].id", "integer", "string"),
    ],
)
def test_a_wrong_type_is_refused_in_the_words_of_an_api_server(value, field, found, wanted):
    message = f'Invalid value: "{found}": {field} in body must be of type {wanted}: "{found}"'
    assert problems(SCHEMA, {"mode": "one"} | value) == [
        Cause(field, "FieldValueTypeInvalid", message)
    ]


def test_every_problem_is_found():
    value = {"count": {}, "parts": [{"id": 1}, {"id": []}], "labels": {"a": {}}}
    found = [cause.field for cause in problems(SCHEMA, value)]
    assert found == ["mode", "count", "parts[0].id", "parts[1].id", "labels.a"]


def test_a_value_of_the_wrong_type_is_not_among_the_supported_ones_either():
    reasons = [cause.reason for cause in problems(SCHEMA, {"mode": 1})]
    assert reasons == ["FieldValueTypeInvalid", "FieldValueNotSupported"]


@pytest.mark.parametrize(
    "value",
    [
        {"mode": "one"},
        {"mode": "all", "count": 1.0, "size": "50%", "maybe": None},
        {"mode": "all", "level": 2.0, "at": "2026-01-01t12:00:00.5+02:00", "odd": 1},
        {"mode": "all", "size": 5, "free": {"a": [{"b": None}]}, "labels": {"x": ""}},
    ],
)
def test_what_fits_is_let_through(value):
    assert problems(SCHEMA, value) == []


def test_unknown_fields_are_pruned_where_nothing_keeps_them():
    value = {"mode": "one", "typo": 1, "free": {"kept": 1}, "parts": [{"id": "a", "gone": 1}]}
    assert prune(SCHEMA, value) == ["typo", "parts[0].gone"]
    assert value == {"mode": "one", "free": {"kept": 1}, "parts": [{"id": "a"}]}


def test_defaults_reach_every_object_that_is_there_and_make_none():
    sent = {"parts": [{}, {"colour": "green"}, {"colour": ""}, {"colour": None}], "odd": {"x": []}}
    assert with_defaults(SCHEMA, sent) == {
        "parts": [{"colour": colour} for colour in ("red", "green", "red", "red")],
        "odd": {"x": []},
        "on": True,
    }
    assert sent["parts"][0] == {}


@pytest.mark.parametrize(("sent", "stored"), [({}, True), ({"on": False}, False)])
def test_absent_fields_get_their_defaults_and_present_ones_keep_theirs(sent, stored):
    assert with_defaults(SCHEMA, sent)["on"] is stored


def test_a_null_stands_against_a_default_where_it_is_allowed():
    schema = {"properties": {"a": {"type": "string", "nullable": True, "default": "b"}}}
    assert with_defaults(schema, {"a": None}) == {"a": None}
    assert with_defaults(schema, {}) == {"a": "b"}


def test_how_deep_the_parts_nest_that_the_schema_does_not_know_does_not_matter():
    deep: Any = {}
    list_of_lists: Any = []
    for _ in range(5000):
        deep, list_of_lists = {"x": deep}, [list_of_lists]
    value = {"mode": list_of_lists, "free": deep, "odd": deep, "labels": {"a": list_of_lists}}
    filled = with_defaults(SCHEMA, value)
    assert prune(SCHEMA, filled) == ["odd"]
    drop_nulls(SCHEMA, filled)
    assert {cause.field for cause in problems(SCHEMA, filled)} == {"mode", "labels.a"}


def test_null_means_absent_unless_the_schema_allows_it():
    value = {"mode": None, "maybe": None, "parts": [{"id": None}], "labels": {"a": None}}
    drop_nulls(SCHEMA, value)
    assert value == {"maybe": None, "parts": [{}], "labels": {}}


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
    problems(SCHEMA, with_defaults(SCHEMA, value))
