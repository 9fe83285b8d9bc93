"""Writes what is generated from the models: CRDs, and the reference pages of their fields.

    python -m testbed.generate [DIRECTORY]

Run by `make generate`; a test compares the result with what is checked in.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from squall.api.cluster import NODE_FAULT
from squall.api.crd import definition
from squall.api.served import Schema, ServedKind
from squall.faults import kinds
from squall.injection.served import served_kinds

_HEADER = "# Generated from the models; `make generate` writes it anew.\n"


def generated() -> Iterator[tuple[str, str]]:
    """Give every generated file: its path below the root of the repository, and its text."""
    for kind in served_kinds(kinds()):
        resource = kind.resource
        crd = yaml.safe_dump(definition(kind), sort_keys=False, width=100, allow_unicode=True)
        yield f"deploy/crds/{resource.group}_{resource.plural}.yaml", _HEADER + crd
        if kind.resource != NODE_FAULT:  # users read NodeFaults, they never write one
            yield f"docs/reference/{resource.kind.lower()}.md", reference(kind)


def reference(kind: ServedKind) -> str:
    """Write the page of one kind: every field that a manifest may set, and what it means."""
    spec = kind.schema["properties"]["spec"]
    rows = "\n".join(_rows(spec, "spec", required=True))
    return f"""# {kind.resource.kind}

{kind.schema["description"]}

`apiVersion: {kind.resource.api_version}`, `kubectl get {kind.resource.plural}`.
Fields in **bold** are required where the object they are in is given.

| field | type | meaning |
|---|---|---|
{rows}
"""


def _rows(schema: Schema, at: str, *, required: bool) -> Iterator[str]:
    if at != "spec":
        name = f"**`{at.removeprefix('spec.')}`**" if required else f"`{at.removeprefix('spec.')}`"
        yield f"| {name} | {_type(schema)} | {_meaning(schema)} |"
    below = schema.get("items", schema)
    inner = f"{at}[]" if "items" in schema else at
    for child, child_schema in below.get("properties", {}).items():
        yield from _rows(
            child_schema, f"{inner}.{child}", required=child in below.get("required", ())
        )


def _type(schema: Schema) -> str:
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map to {_type(schema['additionalProperties'])}"
    if "enum" in schema:
        return " &#124; ".join(f"`{option}`" for option in schema["enum"])
    return str(schema["type"])


def _meaning(schema: Schema) -> str:
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (("minimum", "at least"), ("maximum", "at most"))
        if key in schema
    ]
    default = [f"`{schema['default']}` by default"] if "default" in schema else []
    limits = f" ({', '.join(bounds + default)})" if bounds or default else ""
    return str(schema.get("description", "")).replace("|", "&#124;") + limits


def main(root: Path) -> None:
    """Write every generated file below `root`."""
    for path, text in generated():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
