"""Writes what is generated: CRDs and pages of their fields, and the page of the command line.

    python -m testbed.generate [DIRECTORY]

Run by `make generate`; a test compares the result with what is checked in.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml

from squall.api.cluster import NODE_FAULT, WORKLOAD
from squall.api.crd import definition
from squall.api.served import Schema, ServedKind
from squall.cli import program
from squall.faults import kinds
from squall.injection.served import served_kinds

_HEADER = "# Generated from the models; `make generate` writes it anew.\n"


def generated() -> Iterator[tuple[str, str]]:
    """Give every generated file: its path below the root of the repository, and its text."""
    for kind in served_kinds(kinds()):
        resource = kind.resource
        crd = yaml.safe_dump(definition(kind), sort_keys=False, width=100, allow_unicode=True)
        name = f"{resource.group}_{resource.plural}.yaml"
        yield f"deploy/crds/{name}", _HEADER + crd
        if kind.resource != WORKLOAD:  # served by `squall up` alone
            yield f"deploy/helm/squall/files/crds/{name}", _HEADER + crd
        if kind.resource != NODE_FAULT:  # users read NodeFaults, they never write one
            yield f"docs/reference/{resource.kind.lower()}.md", reference(kind)
    yield "docs/reference/command-line.md", command_line()


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


def command_line() -> str:
    """Write the page of the command line: every verb, its arguments and options."""
    verbs: dict[str, Any] = typer.main.get_command(program()).commands  # type: ignore[attr-defined]
    return _COMMAND_LINE + "".join(_verb(name, verb) for name, verb in verbs.items())


_COMMAND_LINE = """# The command line

`squall VERB --help` says the same. The exit status is 0 when it is done, 2 when the request is
wrong, 3 when this host cannot do it, 75 when it is worth another try, 130 after Ctrl-C, and 1
otherwise; `squall exec` ends with the status of its command.
"""


def _verb(name: str, verb: Any) -> str:  # noqa: ANN401  (the parser's own classes are private)
    arguments = "".join(
        f" {p.name.upper()}" if p.required else f" [{p.name.upper()}]"
        for p in verb.params
        if p.param_type_name == "argument"
    )
    rows = "".join(
        f"| {_called(p)} | {p.help}{_default(p)} |\n" for p in verb.params if p.name != "help"
    )
    told = " ".join(verb.help.split("\n\n")[0].split())
    more = "".join(f"\n{' '.join(part.split())}\n" for part in verb.help.split("\n\n")[1:])
    return f"\n## squall {name}{arguments}\n\n{told}\n{more}\n| | |\n|---|---|\n{rows}"


def _called(parameter: Any) -> str:  # noqa: ANN401  (as above)
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    return f"**{names}**" if parameter.required else names


def _default(parameter: Any) -> str:  # noqa: ANN401  (as above)
    default = parameter.default
    return f" (`{default}` by default)" if default and not parameter.required else ""


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
