"""`squall exec`: run a command inside a target."""

from typing import Annotated

import typer

from squall.cli.options import Kubeconfig, Namespace, parts_of, wait_for
from squall.cli.parts import Access


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("exec", context_settings={"ignore_unknown_options": True})(execute)


def execute(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the target's Pod.")],
    command: Annotated[list[str], typer.Argument(help="What to run, after `--`.")],
    container: Annotated[str | None, typer.Option(help="Else the first container.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Run a command in the namespaces and cgroup of a target; ends with its exit status."""
    access = Access(kubeconfig, namespace)
    raise typer.Exit(wait_for(parts_of(context).execute(access, name, container, command)))
