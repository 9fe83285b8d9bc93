"""From a model to the structural OpenAPI v3 schema of a CustomResourceDefinition."""

from typing import Any

from pydantic import BaseModel

from squall.api.served import Schema
from squall.api.wire import WRITTEN

_KEPT = (
    "type",
    "description",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minItems",
    "minLength",
    "required",
    "x-kubernetes-preserve-unknown-fields",
)
_FREE: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def structural(model: type[BaseModel]) -> Schema:
    """Inline every reference, fold `X | None` into an optional X, keep written defaults alone.

    Source: Kubernetes, "Extend the API with CustomResourceDefinitions", structural schemas.
    """
    whole = model.model_json_schema(by_alias=True)
    return _fold(whole, whole.get("$defs", {}))


def served_schema(description: str, spec: Schema, status: Schema | None = None) -> Schema:
    """Give the schema of a whole object around those of its spec and status."""
    parts = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": spec,
    }
    if status is not None:
        parts["status"] = status
    whole: Schema = {"type": "object", "description": description, "properties": parts}
    return whole | ({"required": ["spec"]} if "required" in spec else {})


def _fold(node: Schema, definitions: Schema) -> Schema:
    if "$ref" in node:
        named = definitions[node["$ref"].rpartition("/")[2]]
        return _fold(named, definitions) | _said(node)
    if "anyOf" in node:
        (only,) = (option for option in node["anyOf"] if option != {"type": "null"})
        return _fold(only, definitions) | _said(node)
    folded: Schema = {key: node[key] for key in _KEPT if key in node}
    if "const" in node:
        folded["enum"] = [node["const"]]
    if node.get(WRITTEN):
        folded["default"] = node["default"]
    if "description" in folded:
        folded["description"] = " ".join(folded["description"].split())
    if "properties" in node:
        folded["properties"] = {
            name: _fold(child, definitions) for name, child in node["properties"].items()
        }
    elif node.get("type") == "object":
        folded |= _map(node.get("additionalProperties", True), definitions)
    if "items" in node:
        folded["items"] = _fold(node["items"], definitions)
    return folded


def _map(values: Any, definitions: Schema) -> Schema:  # noqa: ANN401  (True or a schema)
    if values is True:
        return _FREE
    child = _fold(values, definitions)
    return {"additionalProperties": child if "type" in child else _FREE}


def _said(node: Schema) -> Schema:
    said = {"description": " ".join(node["description"].split())} if "description" in node else {}
    return said | ({"default": node["default"]} if node.get(WRITTEN) else {})
