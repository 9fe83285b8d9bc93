"""Structural schemas at work: unknown fields are pruned, defaults filled in, values checked.

Source: Kubernetes' CustomResourceDefinition v1, "structural schemas"; the messages are those of
its API server.
"""

import re
from copy import deepcopy
from functools import cache
from typing import Any

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
            below = f"{path}.{name}" if path else name
            if name in properties:
                unknown += prune(properties[name], value[name], below)
            elif isinstance(additional, dict):
                unknown += prune(additional, value[name], below)
            elif not (schema.get(_PRESERVE) or additional or _open(schema)):
                unknown.append(below)
                del value[name]
    elif isinstance(value, list):
        items = schema.get("items") or {_PRESERVE: True}
        for index, item in enumerate(value):
            unknown += prune(items, item, f"{path}[{index}]")
    return unknown


def fill_defaults(schema: Schema, value: Json) -> None:
    """Give absent fields the defaults of the schema, in place."""
    if isinstance(value, dict):
        for name, field in (schema.get("properties") or {}).items():
            if "default" in field and (
                name not in value or (value[name] is None and not field.get("nullable"))
            ):
                value[name] = deepcopy(field["default"])
            if name in value:
                fill_defaults(field, value[name])
        if isinstance(additional := schema.get("additionalProperties"), dict):
            for item in value.values():
                fill_defaults(additional, item)
    elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
        for item in value:
            fill_defaults(items, item)


def drop_nulls(schema: Schema, value: Json) -> None:
    """Remove fields that are null where the schema allows no null, in place.

    A client that writes `field: null` means "absent", unless the schema says otherwise.
    """
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        for name in [n for n, v in value.items() if v is None and n in properties]:
            if not properties[name].get("nullable"):
                del value[name]
        for name, field in properties.items():
            if name in value:
                drop_nulls(field, value[name])
    elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
        for item in value:
            drop_nulls(items, item)


def problems(schema: Schema, value: Json, path: str = "") -> list[Cause]:
    """Check a value against its schema.

    Returns:
        Every reason to refuse it; empty when it fits.
    """
    if value is None and schema.get("nullable"):
        return []
    if not _fits_type(schema, value):
        return [_wrong_type(schema, value, path)]
    found: list[Cause] = []
    if isinstance(value, dict):
        found += _in_object(schema, value, path)
    elif isinstance(value, list):
        found += _in_list(schema, value, path)
    elif isinstance(value, str):
        found += _in_text(schema, value, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found += _in_number(schema, value, path)
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(_quoted(choice) for choice in schema["enum"])
        message = f"Unsupported value: {_quoted(value)}: supported values: {supported}"
        found.append(Cause(path, "FieldValueNotSupported", message))
    return found


def _open(schema: Schema) -> bool:
    """Say whether the schema says nothing about what may be inside."""
    return not (schema.keys() & {"type", "properties", "additionalProperties"})


def _fits_type(schema: Schema, value: Json) -> bool:
    if schema.get(_INT_OR_STRING):
        return isinstance(value, int | str) and not isinstance(value, bool)
    wanted = schema.get("type")
    if wanted is None:
        return True
    if isinstance(value, bool):
        return bool(wanted == "boolean")
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[wanted])


def _wrong_type(schema: Schema, value: Json, path: str) -> Cause:
    wanted = "integer or string" if schema.get(_INT_OR_STRING) else schema["type"]
    found = _type_name(value)
    message = f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
    return Cause(path, "FieldValueTypeInvalid", message)


def _in_object(schema: Schema, value: dict[str, Any], path: str) -> list[Cause]:
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    below = f"{path}." if path else ""
    found = [
        Cause(f"{below}{name}", "FieldValueRequired", "Required value")
        for name in schema.get("required", ())
        if name not in value
    ]
    for name, item in value.items():
        if name in properties:
            found += problems(properties[name], item, f"{below}{name}")
        elif isinstance(additional, dict):
            found += problems(additional, item, f"{below}{name}")
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
    wrong: list[str] = []
    if len(value) < (least := schema.get("minLength", 0)):
        wrong.append(f"should be at least {least} chars long")
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        wrong.append(f"should be at most {schema['maxLength']} chars long")
    if "pattern" in schema and not _compiled(schema["pattern"]).search(value):
        wrong.append(f"should match '{schema['pattern']}'")
    return [
        Cause(path, "FieldValueInvalid", f"Invalid value: {_quoted(value)}: {path} in body {why}")
        for why in wrong
    ]


def _in_number(schema: Schema, value: float, path: str) -> list[Cause]:
    wrong: list[str] = []
    if "minimum" in schema:
        least, strict = schema["minimum"], schema.get("exclusiveMinimum", False)
        if value < least or (strict and value == least):
            wrong.append(f"should be greater than {'' if strict else 'or equal to '}{least}")
    if "maximum" in schema:
        most, strict = schema["maximum"], schema.get("exclusiveMaximum", False)
        if value > most or (strict and value == most):
            wrong.append(f"should be less than {'' if strict else 'or equal to '}{most}")
    return [
        Cause(path, "FieldValueInvalid", f"Invalid value: {value}: {path} in body {why}")
        for why in wrong
    ]


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _type_name(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return next(name for name, types in _TYPES.items() if isinstance(value, types))


def _quoted(value: Json) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
