"""`squall health`: how a controller or an agent is, for kubelet."""

from pathlib import Path
from typing import Annotated

import typer

from squall.cli.options import parts_of


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(health)


def health(
    context: typer.Context,
    socket: Annotated[
        Path, typer.Option(help="Unix socket of the process, as its own --health names it.")
    ],
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it is ready, too.", show_default=False)
    ] = False,
) -> None:
    """Ask a `squall controller` or `squall agent` how it is; exit status 0 when it is well."""
    healthy, said = parts_of(context).health(socket, ready=ready)
    typer.echo(said)
    raise typer.Exit(0 if healthy else 1)
