"""`squall apply` and `squall delete`: manifests without kubectl."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from squall.api.cluster import AlreadyExists, Cluster, NotFound, Object, Resource
from squall.cli.options import Kubeconfig, ManifestFile, Namespace, documents, parts_of, wait_for
from squall.cli.parts import Access
from squall.cli.resources import resource_of

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
    """Create the objects of a manifest; what is there already must say the same."""

    async def each(cluster: Cluster, resource: Resource, obj: Object) -> str:
        try:
            await cluster.create(resource, obj)
        except AlreadyExists:
            patch = {key: value for key, value in obj.items() if key in {"spec", "metadata"}}
            where = obj["metadata"].get("namespace")
            await cluster.patch(resource, where, obj["metadata"]["name"], patch)
            return "configured"
        return "created"

    _for_all(context, file, Access(kubeconfig, namespace), each)


def delete(
    context: typer.Context,
    file: ManifestFile,
    ignore_not_found: Annotated[bool, typer.Option(help="A missing object is fine.")] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Delete the objects of a manifest; experiments take their faults back first."""

    async def each(cluster: Cluster, resource: Resource, obj: Object) -> str:
        meta = obj["metadata"]
        try:
            await cluster.delete(resource, meta.get("namespace"), meta["name"])
        except NotFound:
            if not ignore_not_found:
                raise
            return "not found"
        return "deleted"

    _for_all(context, file, Access(kubeconfig, namespace), each)


def _for_all(context: typer.Context, file: Path, access: Access, each: _Each) -> None:
    objects = [(resource_of(obj), obj) for obj in documents(file)]

    async def work() -> None:
        async with parts_of(context).cluster(access) as cluster:
            for resource, obj in objects:
                if resource.namespaced:
                    obj["metadata"].setdefault("namespace", access.namespace)
                done = await each(cluster, resource, obj)
                name = f"{resource.kind.lower()}.{resource.group}/{obj['metadata']['name']}"
                typer.echo(f"{name} {done}")

    wait_for(work())
