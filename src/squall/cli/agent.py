"""`squall agent`: the faults of one node of a cluster."""

from pathlib import Path
from typing import Annotated

import typer

from squall.api.metadata import INSTALL_NAMESPACE
from squall.cli.options import DATA_DIRECTORY, DataDirectory, parts_of, wait_for
from squall.cli.parts import AgentSettings


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(agent)


def agent(  # noqa: PLR0913, PLR0917  (one for each option)
    context: typer.Context,
    node_name: Annotated[
        str, typer.Option(envvar="NODE_NAME", help="This node, as the cluster calls it.")
    ],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Of the installation.")
    ] = INSTALL_NAMESPACE,
    data_dir: DataDirectory = DATA_DIRECTORY,
    lease_seconds: Annotated[
        float, typer.Option(min=1.0, help="After so much silence, faults are taken back.")
    ] = 60.0,
    policy: Annotated[
        Path | None, typer.Option(help="YAML file of what may be hit; without: everything.")
    ] = None,
    health: Annotated[
        Path | None,
        typer.Option(
            help="Unix socket that answers /healthz and /readyz; see `squall-node health`."
        ),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="ADDRESS:PORT of /metrics, for callers with a token. No port else.")
    ] = "",
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Which API. Else $KUBECONFIG, else the service account of this pod."),
    ] = None,
) -> None:
    """Make the faults of one node true, until SIGTERM, which takes all of them back.

    Runs as a DaemonSet, or on a machine with a kubeconfig. Killed, it goes on from its journal; if
    it does not come back within a lease, its watcher takes every fault back.
    """
    settings = AgentSettings(
        namespace=namespace,
        node_name=node_name,
        lease_seconds=lease_seconds,
        data_directory=data_dir,
        policy=policy,
        health=health,
        metrics=metrics,
        kubeconfig=kubeconfig,
    )

    def ready() -> None:
        typer.echo(f"squall agent acts on {node_name}")

    wait_for(parts_of(context).agent(settings, ready))
    typer.echo("squall agent has ended; every target is as it was")
