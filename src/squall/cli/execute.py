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
    name: Annotated[str, typer.Argument(help="Name of the target, which is that of its Pod.")],
    command: Annotated[list[str], typer.Argument(help="What to run, after `--`.")],
    container: Annotated[
        str | None, typer.Option(help="Which container. Else the first one.")
    ] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Run a command inside a target: in its network, its files, its cgroup.

    Ends with the command's exit status; 126 and 127 where it cannot be started.
    """
    access = Access(kubeconfig, namespace)
    raise typer.Exit(wait_for(parts_of(context).execute(access, name, container, command)))
