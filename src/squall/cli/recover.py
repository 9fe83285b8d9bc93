"""`squall recover --all`: put this host right with no API at all."""

from typing import Annotated

import typer

from squall.cli.options import DATA_DIRECTORY, DataDirectory, parts_of, wait_for


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(recover)


def recover(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Every target of this host.")] = False,
    data_dir: DataDirectory = DATA_DIRECTORY,
) -> None:
    """Take back all faults that the journal of this host knows; reads no API."""
    if not everything:
        raise typer.BadParameter("say --all: every fault on this host will be taken back")

    async def work() -> None:
        async for line in parts_of(context).recover(data_dir):
            typer.echo(line)

    wait_for(work())
