"""Structural schemas at work: unknown fields are pruned, defaults filled in, values checked.

Source: Kubernetes' CustomResourceDefinition v1, "structural schemas"; what is accepted, and the
words of what is not, are those of its API server (`tests/kubernetes` asks it).
"""

import re
from collections.abc import Callable, Mapping
from datetime import date
from functools import cache
from types import MappingProxyType
from typing import Any

from squall.api.go_format import offered, written
from squall.api.served import Cause, Schema

Json = Any
"""Any JSON value."""

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_LARGEST_WHOLE_FLOAT = 2**53 - 1
"""A float may stand for an integer as long as it can tell it from the next one."""
_BASE64 = re.compile(
    r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})"
)
_MOMENT = re.compile(
    r"(\d{4}-\d{2}-\d{2})T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]\d{2}:\d{2})",
    re.ASCII | re.IGNORECASE,
)


def prune(schema: Schema, value: Json, path: str = "") -> list[str]:
    """Remove fields that the schema does not know, in place.

    Returns:
        Their paths.
    """
    unknown: list[str] = []
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        additional = schema.get("additionalProperties")
        for name in list(value):
            below = member(path, name)
            if name in properties:
                unknown += prune(properties[name], value[name], below)
            elif isinstance(additional, dict):
                unknown += prune(additional, value[name], below)
            elif not (schema.get(_PRESERVE) or additional or _open(schema)):
                unknown.append(below)
                del value[name]
    elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
        for index, item in enumerate(value):
            unknown += prune(items, item, f"{path}[{index}]")
    return unknown


def with_defaults(schema: Schema, value: Json) -> Json:
    """Copy a value, filling in defaults as the API server does, and for empty strings too.

    An empty string where a default is meant is what upstream's webhook replaces as well. What the
    schema says nothing about is shared, not copied, so that its depth does not matter.
    """
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(schema["items"], item) for item in value]
    if not isinstance(value, dict) or not schema.keys() & {"properties", "additionalProperties"}:
        return value
    fields = schema.get("properties", {})
    rest = schema.get("additionalProperties", {})
    filled = {name: with_defaults(fields.get(name, rest), item) for name, item in value.items()}
    for name, field in fields.items():
        if "default" in field and not (name in filled and _is_meant(field, filled[name])):
            filled[name] = field["default"]
    return filled


def drop_nulls(schema: Schema, value: Json) -> None:
    """Remove fields that are null where the schema allows no null, in place.

    A client that writes `field: null` means "absent", unless the schema says otherwise.
    """
    if isinstance(value, dict):
        fields, rest = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, item in list(value.items()):
            field = fields.get(name, rest)
            if isinstance(field, dict):
                if item is not None:
                    drop_nulls(field, item)
                elif not field.get("nullable"):
                    del value[name]
    elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
        for item in value:
            drop_nulls(items, item)


def problems(schema: Schema, value: Json, path: str = "") -> list[Cause]:
    """Check a value against its schema.

    Fields that the schema does not know are none of its business.

    Returns:
        Every reason to refuse it; empty when it fits.
    """
    if value is None and schema.get("nullable"):
        return []
    found: list[Cause] = []
    if not _fits_type(schema, value):
        found.append(_wrong_type(schema, value, path))
    elif isinstance(value, dict):
        found += _in_object(schema, value, path)
    elif isinstance(value, list):
        found += _in_list(schema, value, path)
    elif isinstance(value, str):
        found += _in_text(schema, value, path)
    if isinstance(value, int | float) and not isinstance(value, bool):
        found += _in_number(schema, value, path)
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(map(offered, schema["enum"]))
        message = f"Unsupported value: {written(value)}: supported values: {supported}"
        found.append(Cause(path, "FieldValueNotSupported", message))
    return found


def member(path: str, name: str) -> str:
    """JSON path of a field below another."""
    return f"{path}.{name}" if path else name


def _open(schema: Schema) -> bool:
    """Say whether the schema says nothing about what may be inside."""
    return not (schema.keys() & {"type", "properties", "additionalProperties"})


def _is_meant(field: Schema, value: Json) -> bool:
    """Say whether a value stands against the default of its field."""
    return bool(field.get("nullable")) if value is None else value != ""


def _fits_type(schema: Schema, value: Json) -> bool:
    wanted = schema.get("type")
    if schema.get(_INT_OR_STRING):
        return isinstance(value, str) or _is_integer(value)
    if wanted is None:
        return True
    if wanted == "integer":
        return _is_integer(value)
    if isinstance(value, bool):
        return bool(wanted == "boolean")
    if isinstance(value, str) and schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]](value)
    return isinstance(value, _TYPES[wanted])


def _is_integer(value: Json) -> bool:
    """Say whether a number is whole and fits into 64 bits; the server looks no closer."""
    if isinstance(value, float):
        return value.is_integer() and abs(value) <= _LARGEST_WHOLE_FLOAT
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_moment(value: str) -> bool:
    read = _MOMENT.fullmatch(value)
    try:
        return read is not None and bool(date.fromisoformat(read[1]))
    except ValueError:  # no such day
        return False


_FORMATS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {"date-time": _is_moment, "byte": lambda text: _BASE64.fullmatch(text) is not None}
)
"""Of texts; others are not looked at."""


def _wrong_type(schema: Schema, value: Json, path: str) -> Cause:
    if isinstance(value, str) and schema.get("type") == "string":
        wanted, found = schema["format"], written(value)  # a text, but not of that format
    elif schema.get("format") == "byte" and not isinstance(value, list):
        number = {int: '"int64"', float: '"float64"'}.get(type(value), '""')
        wanted, found = "byte", number  # named as Go does
    else:
        wanted = "integer,string" if schema.get(_INT_OR_STRING) else schema["type"]
        found = f'"{_type_name(value)}"'
    message = f"Invalid value: {found}: {path} in body must be of type {wanted}: {found}"
    return Cause(path, "FieldValueTypeInvalid", message)


def _in_object(schema: Schema, value: dict[str, Any], path: str) -> list[Cause]:
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    found = [
        Cause(member(path, name), "FieldValueRequired", "Required value")
        for name in schema.get("required", ())
        if name not in value
    ]
    for name, item in value.items():
        if name in properties:
            found += problems(properties[name], item, member(path, name))
        elif isinstance(additional, dict):
            found += problems(additional, item, member(path, name))
    return found


def _in_list(schema: Schema, value: list[Any], path: str) -> list[Cause]:
    found: list[Cause] = []
    if len(value) < (least := schema.get("minItems", 0)):
        message = f"Invalid value: {len(value)}: {path} in body should have at least {least} items"
        found.append(Cause(path, "FieldValueInvalid", message))
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        message = f"Too many: {len(value)}: must have at most {schema['maxItems']} items"
        found.append(Cause(path, "FieldValueTooMany", message))
    if isinstance(items := schema.get("items"), dict):
        for index, item in enumerate(value):
            found += problems(items, item, f"{path}[{index}]")
    return found


def _in_text(schema: Schema, value: str, path: str) -> list[Cause]:
    if "maxLength" in schema and len(value) > (most := schema["maxLength"]):
        return [Cause(path, "FieldValueTooLong", f"Too long: may not be more than {most} bytes")]
    if len(value) < (least := schema.get("minLength", 0)):
        return [_invalid(value, path, f"should be at least {least} chars long")]
    if "pattern" in schema and not _compiled(schema["pattern"]).search(value):
        return [_invalid(value, path, f"should match '{schema['pattern']}'")]
    return []


def _in_number(schema: Schema, value: float, path: str) -> list[Cause]:
    """Hold a number against its bounds; both are compared, and written, as what the number is."""
    found: list[Cause] = []
    if "minimum" in schema:
        least, strict = type(value)(schema["minimum"]), schema.get("exclusiveMinimum", False)
        if value < least or (strict and value == least):
            why = f"should be greater than {'' if strict else 'or equal to '}{written(least)}"
            found.append(_invalid(value, path, why))
    if "maximum" in schema:
        most, strict = type(value)(schema["maximum"]), schema.get("exclusiveMaximum", False)
        if value > most or (strict and value == most):
            why = f"should be less than {'' if strict else 'or equal to '}{written(most)}"
            found.append(_invalid(value, path, why))
    return found


def _invalid(value: Json, path: str, why: str) -> Cause:
    message = f"Invalid value: {written(value)}: {path} in body {why}"
    return Cause(path, "FieldValueInvalid", message)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Read a pattern of Go's: ASCII classes, and a `$` that no line feed may follow."""
    if pattern.endswith("$") and not pattern.endswith("\\$"):
        pattern = rf"{pattern[:-1]}\Z"
    return re.compile(pattern, re.ASCII)


def _type_name(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) and not _is_integer(value):
        return "number"  # the server keeps what is larger as a float
    return next(name for name, types in _TYPES.items() if isinstance(value, types))
