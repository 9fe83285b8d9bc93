"""`squall doctor`: what this host can do, found out by trying."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from squall.cli.options import parts_of, wait_for


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(doctor)


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Try each capability in a throw-away namespace and say which faults work, and by what."""
    found = wait_for(parts_of(context).diagnose())
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    for title, heads, rows in (
        ("Faults", ("fault", "", "means"), [(k.kind, k.works, k.path) for k in found.kinds]),
        (
            "Capabilities",
            ("capability", "", "found"),
            [(c.name, c.works, c.detail) for c in found.capabilities],
        ),
    ):
        table = Table(*heads, title=title, title_justify="left", box=None)
        for name, works, detail in rows:
            table.add_row(name, "[green]yes[/]" if works else "[red]no[/]", detail)
        Console().print(table)
