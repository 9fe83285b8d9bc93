"""`squall controller`: chooses targets and orders faults in a cluster."""

import socket
from pathlib import Path
from typing import Annotated

import typer

from squall.api.metadata import INSTALL_NAMESPACE
from squall.cli.options import address, parts_of, wait_for
from squall.cli.parts import ControllerSettings


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(controller)


Identity = Annotated[
    str,
    typer.Option(
        envvar="POD_NAME",
        help="Who holds the lease: the name of this pod.",
        show_default="the host name",
    ),
]
InstallNamespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Of the installation: of Lease and NodeFaults.")
]
LeaseSeconds = Annotated[
    float,
    typer.Option(min=1.0, help="After so much silence of all controllers, faults are taken back."),
]
PolicyFile = Annotated[
    Path | None, typer.Option(help="YAML file of what may be hit; read once. Without: everything.")
]
WebhookAddress = Annotated[
    str,
    typer.Option(callback=address, help="ADDRESS:PORT of the admission webhook. Without: none."),
]
ServiceName = Annotated[
    str, typer.Option(help="Of the webhook: its Service, Secret and configurations.")
]
MetricsAddress = Annotated[
    str,
    typer.Option(
        callback=address, help="ADDRESS:PORT of /metrics, for callers with a token. No port else."
    ),
]
HealthSocket = Annotated[
    Path | None,
    typer.Option(help="Unix socket that answers /healthz and /readyz; see `squall-node health`."),
]
PauseImage = Annotated[
    str, typer.Option(help="What containers of a pod run while a pod-failure is live.")
]
PodKubeconfig = Annotated[
    Path | None,
    typer.Option(help="Which API. Else $KUBECONFIG, else the service account of this pod."),
]


def controller(  # noqa: PLR0913, PLR0917  (one for each option)
    context: typer.Context,
    namespace: InstallNamespace = INSTALL_NAMESPACE,
    identity: Identity = "",
    lease_seconds: LeaseSeconds = 60.0,
    policy: PolicyFile = None,
    webhook: WebhookAddress = "",
    service: ServiceName = "squall-webhook",
    metrics: MetricsAddress = "",
    health: HealthSocket = None,
    pause_image: PauseImage = "registry.k8s.io/pause:3.10",
    kubeconfig: PodKubeconfig = None,
) -> None:
    """Choose targets and order faults from the agents of a cluster, until SIGTERM.

    Several may run: one leads, the others take over within seconds of its end. Stopping leaves
    faults to whoever takes over; if nobody does, agents take them back after the lease.
    """
    settings = ControllerSettings(
        namespace=namespace,
        identity=identity or socket.gethostname(),
        lease_seconds=lease_seconds,
        policy=policy,
        webhook=webhook,
        service=service,
        metrics=metrics,
        health=health,
        pause_image=pause_image,
        kubeconfig=kubeconfig,
    )

    def ready() -> None:
        typer.echo(f"squall controller {settings.identity} is ready")

    wait_for(parts_of(context).controller(settings, ready))
    typer.echo("squall controller has ended")
