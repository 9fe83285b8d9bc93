"""`squall halt`: the kill switch."""

from typing import Annotated

import typer

from squall.api.cluster import HALT, AlreadyExists, Cluster, NotFound, Object
from squall.cli.options import Kubeconfig, parts_of, wait_for
from squall.cli.parts import Access

NAME = "halt"
"""Name of the Halt that this verb makes and releases; others may exist beside it."""


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(halt)


def halt(
    context: typer.Context,
    release: Annotated[
        bool, typer.Option("--release", help="Allow faults again.", show_default=False)
    ] = False,
    reason: Annotated[str, typer.Option(help="Shown on every experiment it stops.")] = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Take every fault back now, and refuse new ones until released.

    Agents obey by themselves, controller or not. What was halted stays ended after the release;
    pause and resume an experiment to run it again.
    """

    async def work() -> str:
        async with parts_of(context).cluster(Access(kubeconfig)) as cluster:
            return await (_release(cluster) if release else _halt(cluster, reason))

    typer.echo(wait_for(work()))


async def _halt(cluster: Cluster, reason: str) -> str:
    wanted: Object = {
        "apiVersion": HALT.api_version,
        "kind": HALT.kind,
        "metadata": {"name": NAME},
        "spec": {"reason": reason},
    }
    try:
        await cluster.create(HALT, wanted)
    except AlreadyExists:
        return "already halted; `squall halt --release` allows faults again"
    return "halted: every agent takes its faults back and refuses new ones"


async def _release(cluster: Cluster) -> str:
    try:
        await cluster.delete(HALT, None, NAME)
    except NotFound:
        return "nothing is halted by this command"
    return "released: new experiments may act; those that were halted stay ended"
