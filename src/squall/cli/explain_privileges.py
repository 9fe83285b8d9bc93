"""`squall explain-privileges`: what an experiment needs, before anybody grants it."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from squall.cli.options import ManifestFile, Namespace, wanted
from squall.installation.explain import Explanation, explain

JSON = "json"


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(explain_privileges)


def explain_privileges(
    file: ManifestFile,
    namespace: Namespace = "default",
    output: Annotated[
        str, typer.Option("--output", "-o", help="`json`, for programs; else a text.")
    ] = "",
) -> None:
    """Say what the experiments of a manifest need: capabilities on the nodes, rights in the API.

    Asks no API. The author's rights are what the webhook checks, by a SubjectAccessReview for each
    namespace that an experiment may touch.
    """
    if output not in {"", JSON}:
        raise typer.BadParameter(f"-o {output}: there is only -o {JSON}")
    found = [explain(obj, namespace) for obj in wanted(file)]
    if output == JSON:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    for one in found:
        for line in _lines(one):
            typer.echo(line)


def _lines(one: Explanation) -> Iterator[str]:
    yield f"{one.kind}/{one.name} in namespace {one.namespace}"
    if one.agent:
        yield "  an agent on the node of each target, with"
        for capability, why in one.capabilities.items():
            yield f"    {capability:<15} {why}"
    else:
        yield "  no agent: the controller does it through the API alone"
    who = ""
    for right in one.rights:
        if right.who != who:
            who = right.who
            yield f"  rights of the {who}"
        places = {"": "in the cluster", "installation": "in Squall's namespace"}
        where = places.get(right.where, f"in {right.where}")
        yield f"    {', '.join(right.verbs)} {right.resource} {where}: {right.why}"
