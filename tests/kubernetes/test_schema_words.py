"""What the schema check accepts and says, held against what a real API server does and says."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx2
import pytest

from squall.api.schema_check import drop_nulls, problems, prune, with_defaults
from squall.api.served import Schema
from testbed.apiserver import ApiServer, install
from tests.kubernetes.test_odd_objects import client

SPEC: Schema = {
    "type": "object",
    "required": ["wood"],
    "properties": {
        "wood": {"type": "string", "enum": ["oak"]},
        "rings": {"type": "integer", "format": "int32", "enum": [1, 2]},
        "age": {"type": "integer", "format": "int64", "minimum": 1, "maximum": 9_000_000},
        "seed": {"type": "integer"},
        "share": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 100},
        "girth": {"x-kubernetes-int-or-string": True},
        "hollow": {"type": "boolean"},
        "name": {"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^[a-z]+$"},
        "planted": {"type": "string", "format": "date-time"},
        "seal": {"type": "string", "format": "byte"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "nests": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["bird"],
                "properties": {"bird": {"type": "string", "default": "tit"}},
            },
        },
        "leaves": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "items": {"type": "integer", "minimum": 0},
        },
        "notes": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "nickname": {"type": "string", "nullable": True},
    },
}
SCHEMA: Schema = {"type": "object", "required": ["spec"], "properties": {"spec": SPEC}}
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "trees.example.org"},
    "spec": {
        "group": "example.org",
        "names": {"kind": "Tree", "plural": "trees"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": SCHEMA},
            }
        ],
    },
}
ODD_TEXTS = ['"\\\n\t\x07', "\x00\x7f\x80\u2028\U0001f600\U000e0001", "x" * 200, "é", "ab\n"]
ODD: dict[str, list[Any]] = {
    "wood": ["oak", None, "", *ODD_TEXTS, 1, 1.5, True, {"a": 1}, [], [1]],
    "rings": [1, 2.0, 3, 3.0, "x", None],
    "age": [0, 0.0, 10**7, 1e7, -(2**63), 2.0**53, "1"],
    "seed": [2**31, 2**63 - 1, 2**63, 2.0**53 - 1, 2.0**53],
    "share": [0, 0.0, 50, 101, 1e20, 100000.5, -0.00012, -1.2e-05, "x"],
    "girth": [1, "1", 1.0, 1.5, True, {}, None, 2**63],
    "hollow": [False, "true", 0, 1.5, []],
    "name": ["ab", "a", "A", "AB", "abcd", 1, {}, *ODD_TEXTS],
    "planted": [
        *("2026-01-01T12:00:00Z", "2026-01-01t12:00:00.123456+02:00", "2026-01-01", "", "soon"),
        *("2026-01-01T12:00:00", "2026-01-01 12:00:00Z", "2026-02-30T12:00:00Z"),
        *("2026-01-01T24:00:00Z", "2026-01-01T12:00:60Z", "2026-01-01T12:00Z"),
    ],
    "seal": [
        "",
        "e30=",
        "e30",
        "{}",
        "e30=\n",
        "e3 0",
        "====",
        "AAAA",
        "AA==",
        1,
        1.5,
        True,
        {},
        None,
        *ODD_TEXTS,
    ],
    "labels": [{"a b": 1, "a.b": 1}, {"a": None}, []],
    "nests": [{"a": {}}, {"a": None}, {"a b": {"bird": 1}}],
    "leaves": [[], [1, 2, 3], [-1, "x"], [None], {}, 5],
    "notes": [{"a": None}, None, 5],
    "nickname": [None, "a", 1],
}
SPECS = [
    *({"wood": "oak", field: value} for field, values in ODD.items() for value in values),
    {"rings": "x", "hollow": 1, "leaves": [], "name": "A", "share": -1, "odd": {"a": 1}},
    *(None, [], "x", 5),
]


@pytest.fixture(scope="module")
def trees(real: ApiServer) -> Iterator[httpx2.Client]:
    install(real, [DEFINITION])
    with client(real) as http:
        yield http
    real.run("delete", "crd", "trees.example.org")


@pytest.mark.kubernetes
@pytest.mark.parametrize("spec", SPECS, ids=json.dumps)
def test_a_schema_is_checked_as_by_a_real_api_server(trees: httpx2.Client, spec: Any):
    tree = {"apiVersion": "example.org/v1", "kind": "Tree", "metadata": {"name": "one"}}
    url = "/apis/example.org/v1/namespaces/default/trees?dryRun=All"
    answer = trees.post(url, json=tree | {"spec": spec}).json()
    causes = answer.get("details", {}).get("causes", [])
    ours = checked({"spec": spec})
    assert sorted((c.field, c.reason, c.message) for c in problems(SCHEMA, ours)) == sorted(
        (cause["field"], cause["reason"], cause["message"]) for cause in causes
    )
    assert causes or answer["spec"] == ours["spec"]


def checked(value: Any) -> Any:
    value = deepcopy(value)
    prune(SCHEMA, value)
    drop_nulls(SCHEMA, value)
    return with_defaults(SCHEMA, value)
