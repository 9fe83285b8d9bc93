"""`squall install`: into a cluster, or up to date in it."""

from pathlib import Path
from typing import Annotated

import typer

from squall.api.metadata import INSTALL_NAMESPACE
from squall.cli.bundle import Image, PauseImage
from squall.cli.options import Kubeconfig, parts_of, wait_for
from squall.cli.parts import Access
from squall.cli.progress import shown
from squall.installation.bundle import Bundle
from squall.installation.former import remove_former
from squall.installation.install import Installer
from squall.installation.manifests import as_yaml, objects
from squall.installation.settings import (
    IMAGE,
    LEASE_SECONDS,
    PAUSE_IMAGE,
    Settings,
    default_image,
    policy_of,
)

InstallNamespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Namespace of controller and agents.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0, help="Seconds that each wait may take.")
]
TargetNamespace = Annotated[
    str,
    typer.Option(help="Hit pods of this namespace only, and ask for rights in it alone."),
]
LeaseSeconds = Annotated[
    float, typer.Option(min=1, help="How long faults outlive the silence of the controller.")
]
OptIn = Annotated[
    bool,
    typer.Option(
        "--opt-in-namespaces",
        help="Hit only namespaces annotated `chaos-mesh.org/inject: enabled`.",
        show_default=False,
    ),
]
Limits = Annotated[
    list[str] | None,
    typer.Option("--set", help="A limit, as `policy.mostPercent=50`; may be repeated."),
]
AdoptDefinitions = Annotated[
    bool,
    typer.Option(
        "--adopt-crds",
        help="Take over definitions of kinds that Chaos Mesh left.",
        show_default=False,
    ),
]
Archive = Annotated[
    Path | None,
    typer.Option(help="Take the manifests from this archive; see `squall bundle`."),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print the manifests as they would be applied; ask no API.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(install)


def install(  # noqa: PLR0913, PLR0917  (one parameter for each option)
    context: typer.Context,
    namespace: InstallNamespace = INSTALL_NAMESPACE,
    image: Image = "",
    pause_image: PauseImage = PAUSE_IMAGE,
    target_namespace: TargetNamespace = "",
    lease_seconds: LeaseSeconds = LEASE_SECONDS,
    opt_in_namespaces: OptIn = False,
    limits: Limits = None,
    adopt_crds: AdoptDefinitions = False,
    bundle: Archive = None,
    dry_run: DryRun = False,
    timeout: Timeout = 120.0,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Install Squall into a Kubernetes cluster, or bring an installation up to date.

    Can be run again at any time: it says of each object whether it was created, configured or
    unchanged, and waits until controller and agents are ready. Faults that are live stay so.
    """
    policy = policy_of(
        namespace,
        limits or (),
        target_namespace=target_namespace,
        opt_in_namespaces=opt_in_namespaces,
    )
    source = Bundle(bundle) if bundle else None
    image = image or (f"{IMAGE}:{source.version}" if source else default_image())
    wanted = objects(Settings(namespace, image, lease_seconds, pause_image, policy), source)
    if dry_run:
        typer.echo(as_yaml(wanted), nl=False)
        return
    parts = parts_of(context)

    async def work() -> None:
        async with parts.cluster(Access(kubeconfig)) as cluster:
            with shown() as progress:
                installer = Installer(cluster, parts.clock(), progress)
                await installer.check(namespace, wanted, adopt=adopt_crds)
                outcome = await installer.apply(wanted, timeout_seconds=timeout)
                await remove_former(cluster, progress, namespace, wanted)
                progress.done(f"{outcome}; waiting until everything is ready")
                await installer.ready(namespace, timeout_seconds=timeout)

    wait_for(work())
    typer.echo(_NEXT.format(namespace=namespace))


_NEXT = """Squall is ready in namespace {namespace}.
  who would be hit:    squall preview -f experiment.yaml
  begin:               kubectl apply -f experiment.yaml
  watch:               kubectl get networkchaos -w
  stop everything:     squall halt
  remove:              squall uninstall --namespace {namespace}"""
