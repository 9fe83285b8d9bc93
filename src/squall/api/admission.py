"""What the API fills in and refuses, for every kind that is a model; pure, and never raises."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from squall.api.cluster import Object
from squall.api.experiment import ExperimentSpec
from squall.api.go_format import written
from squall.api.schema_check import member, problems, with_defaults
from squall.api.served import Cause, Schema
from squall.api.wire import Wire

IMMUTABLE = "Cannot update chaos spec"
_MISSING = object()
_LONGEST_SHOWN = 100


def default(schema: Schema, obj: Object) -> Object:
    """Copy an object with the defaults of its schema filled in."""
    filled: Object = with_defaults(schema, obj)
    return filled


def default_experiment(schema: Schema, obj: Object) -> Object:
    """Copy an experiment with defaults filled in.

    They are those of its schema, and its own namespace for every selector that names none.
    """
    filled = default(schema, obj)
    spec, metadata = filled.get("spec"), filled.get("metadata")
    if not isinstance(spec, dict) or not isinstance(metadata, dict):
        return filled
    for part in (spec, *spec.values()):
        selector = part.get("selector") if isinstance(part, dict) else None
        # Only where it is absent: a value of the wrong type is for `validate` to see.
        if isinstance(selector, dict) and selector.get("namespaces") in (None, []):
            selector["namespaces"] = [metadata.get("namespace") or "default"]
    return filled


def validate(
    schema: Schema,
    model: type[Wire],
    obj: Object,
    old: Object | None,  # noqa: ARG001  (what a kind of ours was before does not matter)
) -> list[Cause]:
    """Find every reason to refuse an object; `obj` has its defaults already.

    Shape first, then what each value means, then what values mean together: the last only where
    the first two are in order.
    """
    causes = problems(schema, obj)
    spec = obj.get("spec")
    if isinstance(spec, dict):
        blamed = {cause.field for cause in causes}
        causes += (cause for cause in _meaning(model, spec) if not _within(cause.field, blamed))
    return causes


def validate_experiment(
    schema: Schema, model: type[ExperimentSpec], obj: Object, old: Object | None
) -> list[Cause]:
    """Find every reason to refuse an experiment, whose spec must never change."""
    if old is None:
        return validate(schema, model, obj, None)
    # It was accepted once; rules that came later must not block its status or its deletion.
    causes = problems(schema, obj)
    if not causes and obj.get("spec") != old.get("spec"):
        causes.append(Cause("spec", "FieldValueInvalid", f'Invalid value: "object": {IMMUTABLE}'))
    return causes


def _meaning(model: type[Wire], spec: Any) -> Iterator[Cause]:  # noqa: ANN401
    try:
        value = model.model_validate(spec)
    except ValidationError as refused:
        for error in refused.errors(include_url=False, include_context=False):
            where = _path(error["loc"])
            why = error["msg"].removeprefix("Value error, ")
            yield _cause("spec", where, error["input"], why)
        return
    for where, why in _flaws(value, ""):
        yield _cause("spec", where, _at(spec, where), why)


def _cause(root: str, where: str, value: Any, why: str) -> Cause:  # noqa: ANN401
    field = root + (where if where.startswith("[") or not where else f".{where}")
    if value is _MISSING or value == "":
        return Cause(field, "FieldValueRequired", f"Required value: {why}")
    return Cause(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {why}")


def _shown(value: Any) -> str:  # noqa: ANN401
    """Write a value for a message; large and nested ones by their type alone."""
    if isinstance(value, dict | list):
        return '"object"' if isinstance(value, dict) else '"array"'
    text = written(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...{text[0]}"


def _flaws(value: Any, field: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """Ask a value, then everything inside it; depth first, in the order of declaration."""
    if isinstance(value, Wire):
        for flaw in value.flaws():
            yield (
                f"{field}.{flaw.field}" if field and flaw.field else field or flaw.field,
                flaw.message,
            )
        for name, info in type(value).model_fields.items():
            yield from _flaws(getattr(value, name), member(field, info.alias or name))
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from _flaws(item, f"{field}[{at}]")


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path = f"{path}[{part}]" if isinstance(part, int) else member(path, part)
    return path


def _at(spec: Any, where: str) -> Any:  # noqa: ANN401
    for name in where.replace("[", ".").replace("]", "").split(".") if where else ():
        if isinstance(spec, list):
            spec = spec[int(name)]
        elif isinstance(spec, dict) and name in spec:
            spec = spec[name]
        else:
            return _MISSING
    return spec


def _within(field: str, blamed: set[str]) -> bool:
    return any(field == one or field.startswith((f"{one}.", f"{one}[")) for one in blamed)
