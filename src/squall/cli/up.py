"""`squall up`: API, controller, agent and local workloads on this host, in one process."""

from typing import Annotated

import typer

from squall.cli.options import DATA_DIRECTORY, DataDirectory, parts_of, wait_for
from squall.cli.parts import UpSettings


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(up)


def up(
    context: typer.Context,
    data_dir: DataDirectory = DATA_DIRECTORY,
    listen: Annotated[
        str, typer.Option(help="Address and port of the API; port 0 takes a free one.")
    ] = "127.0.0.1:2333",
    lease_seconds: Annotated[
        float, typer.Option(min=1.0, help="After so much silence, faults are taken back.")
    ] = 60.0,
    allow_host_network: Annotated[
        bool,
        typer.Option(
            "--allow-host-network",
            help="Let experiments hit targets that share the network of this host.",
            show_default=False,
        ),
    ] = False,
    no_containers: Annotated[
        bool,
        typer.Option(
            "--no-containers",
            help="Leave out containers of other runtimes on this host; else they show as Pods.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Serve the API, run experiments and local targets, until Ctrl-C or SIGTERM.

    Stopping restores every target. Prints the kubeconfig that kubectl and the other verbs need;
    they find it by themselves where --data-dir is the default.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise typer.BadParameter(f"{listen!r} is not ADDRESS:PORT, such as 127.0.0.1:2333")
    settings = UpSettings(
        data_directory=data_dir,
        host=host.strip("[]"),
        port=int(port),
        lease_seconds=lease_seconds,
        allow_host_network=allow_host_network,
        containers=not no_containers,
    )

    def ready(address: str) -> None:
        typer.echo(f"squall is up at {address}")
        typer.echo(f"export KUBECONFIG={data_dir / 'kubeconfig'}")

    wait_for(parts_of(context).up(settings, ready))
    typer.echo("squall is down")
