"""`squall run`: start a process as a target of its own."""

from typing import Annotated

import typer

from squall.api.cluster import WORKLOAD, Object
from squall.cli.options import Kubeconfig, Namespace, parts_of, wait_for
from squall.cli.parts import Access


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(context_settings={"ignore_unknown_options": True})(run)


def run(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="Name of the target, and of its Pod.")],
    command: Annotated[list[str], typer.Argument(help="What to run, after `--`.")],
    label: Annotated[list[str] | None, typer.Option(help="key=value, by which to select it.")] = (
        None
    ),
    env: Annotated[list[str] | None, typer.Option(help="NAME=value for the process.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Start a process with a network, mounts, processes, cgroup and addresses of its own.

    It shows as a Pod, is restarted when it ends, and goes with `kubectl delete workload NAME`.
    """
    workload: Object = {
        "apiVersion": WORKLOAD.api_version,
        "kind": WORKLOAD.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "command": command,
            "labels": _pairs(label or [], "--label"),
            "env": _pairs(env or [], "--env"),
        },
    }

    async def create() -> None:
        async with parts_of(context).cluster(Access(kubeconfig, namespace)) as cluster:
            await cluster.create(WORKLOAD, workload)

    wait_for(create())
    typer.echo(f"workload.squall.dev/{name} created")


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [key + sep for key, sep, _ in pairs if not key or not sep]:
        raise typer.BadParameter(f"{option} {wrong[0]!r} is not of the form key=value")
    return {key: value for key, _, value in pairs}
