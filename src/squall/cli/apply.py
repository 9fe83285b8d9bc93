"""`squall apply` and `squall delete`: manifests without kubectl."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from squall.api.cluster import AlreadyExists, Cluster, NotFound, Object, Resource
from squall.cli.options import (
    Kubeconfig,
    ManifestFile,
    Namespace,
    documents,
    parts_of,
    wait_for,
    wanted,
)
from squall.cli.parts import Access
from squall.cli.resources import resource_named, resource_of

GONE_PAUSE_SECONDS = 0.1
"""Between looks at an object that is being deleted."""

_Each = Callable[[Cluster, Resource, Object], Awaitable[str]]


def add_to(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(apply)
    app.command()(delete)


def apply(
    context: typer.Context,
    file: ManifestFile,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Create the objects of a manifest, or bring those that are there up to it.

    The spec of an experiment cannot be changed: delete it, or give the new one another name.
    """

    async def each(cluster: Cluster, resource: Resource, obj: Object) -> str:
        try:
            await cluster.create(resource, obj)
        except AlreadyExists:
            patch = {key: value for key, value in obj.items() if key in {"spec", "metadata"}}
            where = obj["metadata"].get("namespace")
            await cluster.patch(resource, where, obj["metadata"]["name"], patch)
            return "configured"
        return "created"

    objects = [(resource_of(obj), obj) for obj in wanted(file)]
    _for_all(context, objects, Access(kubeconfig, namespace), each)


def delete(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="Kind of one object, as `networkchaos`.")] = "",
    name: Annotated[str, typer.Argument(help="Its name.")] = "",
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Every object of this YAML manifest.")
    ] = None,
    ignore_not_found: Annotated[
        bool,
        typer.Option("--ignore-not-found", help="A missing object is fine.", show_default=False),
    ] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Delete one object, or those of a manifest, and wait until they are gone.

    An experiment goes once its faults have been taken back.
    """
    if (file is None) != bool(kind and name):
        raise typer.BadParameter("name either KIND and NAME of one object, or a manifest with -f")
    if file is None:
        resource = resource_named(kind)
        objects = [(resource, {"metadata": {"name": name}})]
    else:
        objects = [(resource_of(obj), obj) for obj in documents(file)]

    async def each(cluster: Cluster, resource: Resource, obj: Object) -> str:
        where, what = obj["metadata"].get("namespace"), obj["metadata"]["name"]
        try:
            await cluster.delete(resource, where, what)
        except NotFound:
            if not ignore_not_found:
                raise
            return "not found"
        await _gone(cluster, resource, where, what)
        return "deleted"

    _for_all(context, objects, Access(kubeconfig, namespace), each)


async def _gone(cluster: Cluster, resource: Resource, namespace: str | None, name: str) -> None:
    """Wait until an object that is being deleted is gone; Ctrl-C only ends the waiting."""
    with suppress(NotFound):
        # Only the API knows when that is.
        while "deletionTimestamp" in (await cluster.get(resource, namespace, name))["metadata"]:  # noqa: ASYNC110
            await asyncio.sleep(GONE_PAUSE_SECONDS)


def _for_all(
    context: typer.Context, objects: list[tuple[Resource, Object]], access: Access, each: _Each
) -> None:
    async def work() -> None:
        async with parts_of(context).cluster(access) as cluster:
            for resource, obj in objects:
                if resource.namespaced:
                    obj["metadata"].setdefault("namespace", access.namespace)
                done = await each(cluster, resource, obj)
                kind = ".".join(filter(None, [resource.kind.lower(), resource.group]))
                typer.echo(f"{kind}/{obj['metadata']['name']} {done}")

    wait_for(work())
