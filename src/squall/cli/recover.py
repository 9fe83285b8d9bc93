"""`squall recover --all`: put this host right with no API at all."""

from typing import Annotated

import typer

from squall.cli.options import DATA_DIRECTORY, DataDirectory, parts_of, wait_for


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(recover)


def recover(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Say that every target is meant.", show_default=False)
    ] = False,
    data_dir: DataDirectory = DATA_DIRECTORY,
) -> None:
    """Take back every fault on this host, with no API, controller or agent running.

    Reads the agent's journal, so a running `squall up` must be stopped first; to end faults while
    it runs, use `squall halt`. Exit status 75: something is busy, and worth another try.
    """
    if not everything:
        raise typer.BadParameter("say --all: every fault on this host will be taken back")

    async def work() -> None:
        async for line in parts_of(context).recover(data_dir):
            typer.echo(line)

    wait_for(work())
