"""What an object goes through before it is stored: pruning, defaults, checks."""

from dataclasses import dataclass, field
from typing import Any

from squall.api.cluster import ApiError, Object
from squall.api.schema_check import drop_nulls, problems, prune
from squall.api.served import Cause, Schema, ServedKind
from squall.kubernetes.embedded.kinds import is_core
from squall.kubernetes.embedded.metadata import metadata_problems
from squall.kubernetes.embedded.refusals import cannot_be_handled, invalid

_ENVELOPE = ("apiVersion", "kind", "metadata")


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a client wants one write to be done."""

    manager: str = "unknown"
    """Who writes, for `managedFields`."""
    dry_run: bool = False
    """Answer as if; store nothing."""
    field_validation: str = "Warn"
    """What happens to unknown fields: Strict refuses, Warn says so, Ignore is silent."""
    warnings: list[str] = field(default_factory=list)
    """Filled for the client."""


def admit(
    kind: ServedKind,
    obj: Object,
    before: Object | None,
    options: WriteOptions,
    *,
    unknown: list[str],
    part: str = "",
) -> Object:
    """Give the object as it will be stored.

    What did not change is not judged again, so that stricter rules never stop the recovery of an
    older object.

    Args:
        kind: its kind.
        obj: with checked metadata; may be changed.
        before: the stored object; None at creation.
        options: how to treat unknown fields.
        unknown: those found in the metadata.
        part: `status` where only that part may change; it passes the schema, but no other rule.

    Raises:
        ApiError: 400 for unknown fields where they are refused, 422 for broken rules.
    """
    body = {name: value for name, value in obj.items() if name not in _ENVELOPE}
    schema = _body_schema(kind.schema)
    unknown = [*unknown, *prune(schema, body)]
    _report_unknown(kind, unknown, options)
    drop_nulls(schema, body)
    obj = {name: obj[name] for name in _ENVELOPE} | body
    if part:
        part_schema = {"properties": {part: schema["properties"].get(part, {})}}
        causes = problems(part_schema, body)
    elif before and body == _without_envelope(before):
        causes = metadata_problems(obj)
    else:
        obj = kind.default(obj)
        causes = metadata_problems(obj) + kind.validate(obj, before)
    if causes:
        raise _refused(kind, obj, causes)
    return obj


def _body_schema(schema: Schema) -> Schema:
    properties = {k: v for k, v in schema.get("properties", {}).items() if k not in _ENVELOPE}
    return schema | {"properties": properties}


def _without_envelope(obj: Object) -> dict[str, Any]:
    return {name: value for name, value in obj.items() if name not in _ENVELOPE}


def _refused(kind: ServedKind, obj: Object, causes: list[Cause]) -> ApiError:
    wrong_types = [cause for cause in causes if cause.reason == "FieldValueTypeInvalid"]
    if wrong_types and is_core(kind.resource):  # typed kinds fail while they are decoded
        return cannot_be_handled(kind.resource, "; ".join(map(str, wrong_types)))
    return invalid(kind.resource, obj["metadata"].get("name", ""), causes)


def _report_unknown(kind: ServedKind, unknown: list[str], options: WriteOptions) -> None:
    said = [f'unknown field "{path}"' for path in unknown]
    if said and options.field_validation == "Strict":
        raise strict_decoding(kind, said)
    if options.field_validation == "Warn":
        options.warnings.extend(said)


def strict_decoding(kind: ServedKind, said: list[str]) -> ApiError:
    """400: the client asked for unknown fields to be refused."""
    return cannot_be_handled(kind.resource, f"strict decoding error: {', '.join(said)}")
