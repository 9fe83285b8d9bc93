"""`squall doctor`: what this host can do, found out by trying."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from squall.cli.options import parts_of, wait_for
from squall.node.doctor import Ability

COLOURS = {Ability.OK: "green", Ability.FALLBACK: "yellow", Ability.MISSING: "red"}


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(doctor)


def doctor(
    context: typer.Context,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for programs.", show_default=False)
    ] = False,
) -> None:
    """Try what this host can do, in throw-away namespaces, and say which faults work here.

    `ok`: by the preferred means. `fallback`: by another, with the same effect. `missing`: not at
    all; such an experiment is refused, naming what is missing.
    """
    found = wait_for(parts_of(context).diagnose())
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=2))
        return
    from rich.console import Console  # noqa: PLC0415  (processes that stay do without)
    from rich.table import Table  # noqa: PLC0415

    table = Table("FAULT", "NEEDS", "", "BY", "MISSING", box=None)
    for finding in found:
        one = finding.capability
        ability = f"[{COLOURS[one.ability]}]{one.ability}[/]"
        table.add_row(finding.kind, one.name, ability, one.path, one.why)
    Console().print(table)
