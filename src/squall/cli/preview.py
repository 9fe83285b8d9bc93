"""`squall preview`: who would be hit, without hitting anybody."""

import typer

from squall.cli.options import Kubeconfig, ManifestFile, Namespace, documents, parts_of, wait_for
from squall.cli.parts import Access
from squall.cli.resources import refuse_unknown_fields


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
    objects = documents(file)
    for obj in objects:
        refuse_unknown_fields(obj)
    for obj in objects:
        obj["metadata"].setdefault("namespace", namespace)
        typer.echo(f"{obj['kind']}/{obj['metadata']['name']}")
        for line in wait_for(parts_of(context).preview(access, obj)):
            typer.echo(f"  {line}")
