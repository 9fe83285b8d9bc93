"""`squall uninstall`: heal everything, then leave nothing behind."""

from typing import Annotated

import typer

from squall.api.metadata import INSTALL_NAMESPACE
from squall.cli.install import InstallNamespace, Timeout
from squall.cli.options import Kubeconfig, parts_of, wait_for
from squall.cli.parts import Access
from squall.cli.progress import shown
from squall.installation.uninstall import Uninstaller


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(uninstall)


def uninstall(
    context: typer.Context,
    namespace: InstallNamespace = INSTALL_NAMESPACE,
    keep_crds: Annotated[
        bool,
        typer.Option("--keep-crds", help="Leave the definitions of the kinds.", show_default=False),
    ] = False,
    heal_only: Annotated[
        bool,
        typer.Option(
            "--heal-only",
            help="Take every fault back, delete every experiment, remove nothing else.",
            show_default=False,
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Go on after the timeout without nodes that do not answer.",
            show_default=False,
        ),
    ] = False,
    timeout: Timeout = 120.0,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Take every fault back, then remove Squall from a Kubernetes cluster.

    Experiments of every namespace it may act on are deleted. Nothing is left: what a node that
    does not answer would keep is said, and such a node stops the removal unless forced.
    """
    parts = parts_of(context)

    async def work() -> None:
        async with parts.cluster(Access(kubeconfig)) as cluster:
            with shown() as progress:
                uninstaller = Uninstaller(cluster, parts.clock(), progress, namespace)
                if heal_only:
                    await uninstaller.heal(timeout_seconds=timeout, force=force)
                    return
                await uninstaller.uninstall(
                    keep_definitions=keep_crds, timeout_seconds=timeout, force=force
                )

    wait_for(work())
