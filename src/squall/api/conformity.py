"""Does a value have the shape that a structural schema asks for? In the API server's words."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from squall.api.served import Cause, Schema

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: (
        not isinstance(value, bool)
        and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    ),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}
_LONGEST_SHOWN = 100


def violations(schema: Schema, value: Any, field: str = "") -> Iterator[Cause]:  # noqa: ANN401
    """Find everything in a decoded JSON value that the schema does not allow.

    Fields that the schema does not know are none of its business; they are pruned or warned about
    by the server.

    Args:
        schema: structural.
        value: any JSON.
        field: JSON path of the value; empty for the whole object.
    """
    kind = schema.get("type")
    if kind is not None and not _TYPES[kind](value):
        yield Cause(field, "FieldValueTypeInvalid", _invalid(value, f"must be of type {kind}"))
        return
    if isinstance(value, dict):
        yield from _in_object(schema, value, field)
    elif isinstance(value, list):
        yield from _in_list(schema, value, field)
    else:
        yield from _in_scalar(schema, value, field)


def shown(value: Any) -> str:  # noqa: ANN401
    """Write a value for a message; large and nested ones by their type alone."""
    if isinstance(value, dict | list):
        return '"object"' if isinstance(value, dict) else '"array"'
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...{text[0]}"


def child(field: str, name: str) -> str:
    """JSON path of a member; names that are no plain words are bracketed."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return f"{field}[{name}]"
    return f"{field}.{name}" if field else name


def _in_object(schema: Schema, value: dict[str, Any], field: str) -> Iterator[Cause]:
    for name in schema.get("required", ()):
        if name not in value:
            yield Cause(child(field, name), "FieldValueRequired", "Required value")
    known = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    for name, member in value.items():
        if name in known:
            yield from violations(known[name], member, child(field, name))
        elif rest is not None:
            yield from violations(rest, member, child(field, name))


def _in_list(schema: Schema, value: list[Any], field: str) -> Iterator[Cause]:
    least = schema.get("minItems", 0)
    if len(value) < least:
        yield Cause(
            field, "FieldValueInvalid", _invalid(value, f"should have at least {least} items")
        )
    for at, item in enumerate(value):
        yield from violations(schema.get("items", {}), item, f"{field}[{at}]")


def _in_scalar(schema: Schema, value: Any, field: str) -> Iterator[Cause]:  # noqa: ANN401
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(json.dumps(option) for option in schema["enum"])
        message = f"Unsupported value: {shown(value)}: supported values: {supported}"
        yield Cause(field, "FieldValueNotSupported", message)
        return
    if complaint := _bounds(schema, value) or _text(schema, value):
        yield Cause(field, "FieldValueInvalid", _invalid(value, complaint))


def _bounds(schema: Schema, value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, int | float):
        return ""
    if "minimum" in schema and value < schema["minimum"]:
        return f"should be greater than or equal to {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        return f"should be less than or equal to {schema['maximum']}"
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""), 63)
    if schema.get("type") == "integer" and not -(2**bits) <= value < 2**bits:
        return f"does not fit into {bits + 1} bits"
    return ""


def _text(schema: Schema, value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, str):
        return ""
    if len(value) < schema.get("minLength", 0):
        return f"should be at least {schema['minLength']} chars long"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"should match '{schema['pattern']}'"
    return ""


def _invalid(value: Any, why: str) -> str:  # noqa: ANN401
    return f"Invalid value: {shown(value)}: {why}"
