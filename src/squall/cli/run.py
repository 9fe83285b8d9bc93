"""`squall run`: start a process as a target of its own."""

from typing import Annotated

import typer

from squall.api.cluster import WORKLOAD, AlreadyExists, Object
from squall.cli.options import Kubeconfig, Namespace, parts_of, wait_for
from squall.cli.parts import Access
from squall.errors import InvalidFault


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(context_settings={"ignore_unknown_options": True})(run)


def run(
    context: typer.Context,
    name: Annotated[
        str, typer.Option(help="Name of the target and of its Pod; others reach it by this.")
    ],
    command: Annotated[list[str], typer.Argument(help="What to run, after `--`.")],
    label: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE by which experiments select it; may be repeated."),
    ] = (None),
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the process; may be repeated.")
    ] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Start a program as a target with a network, addresses, mounts and a cgroup of its own.

    It shows as a Pod, is started again when it ends, and goes with `squall delete workload NAME`.
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
            try:
                await cluster.create(WORKLOAD, workload)
            except AlreadyExists as taken:
                raise InvalidFault(f"{taken}; `squall delete workload {name}` ends it") from taken

    wait_for(create())
    typer.echo(f"workload.squall.dev/{name} created")


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [key + sep for key, sep, _ in pairs if not key or not sep]:
        raise typer.BadParameter(f"{option} {wrong[0]!r} is not of the form key=value")
    return {key: value for key, _, value in pairs}
