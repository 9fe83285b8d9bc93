"""`squall preview`: who would be hit, without hitting anybody."""

import typer

from squall.cli.options import Kubeconfig, ManifestFile, Namespace, parts_of, wait_for, wanted
from squall.cli.parts import Access


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(preview)


def preview(
    context: typer.Context,
    file: ManifestFile,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Name who would be hit by the experiments of a manifest, without hitting anybody.

    Where the mode leaves a choice and the manifest sets no seed, it prints the seed to set.
    """
    access = Access(kubeconfig, namespace)
    for obj in wanted(file):
        obj["metadata"].setdefault("namespace", namespace)
        typer.echo(f"{obj['kind']}/{obj['metadata']['name']}")
        for line in wait_for(parts_of(context).preview(access, obj)):
            typer.echo(f"  {line}")
