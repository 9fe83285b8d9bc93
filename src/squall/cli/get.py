"""`squall get`: objects as a table, without kubectl."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from squall.api.cluster import Object
from squall.cli.options import Kubeconfig, Namespace, parts_of, wait_for
from squall.cli.parts import Access
from squall.cli.resources import resource_named


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(get)


def get(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="networkchaos, pods, workloads, …")],
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """List objects of one kind with what matters of each."""
    resource = resource_named(kind)

    async def read() -> list[Object]:
        async with parts_of(context).cluster(Access(kubeconfig, namespace)) as cluster:
            return await cluster.list(resource, namespace if resource.namespaced else None)

    table = Table("NAME", "STATE", "PROOF", box=None)
    for obj in wait_for(read()):
        table.add_row(obj["metadata"]["name"], state(obj), proof(obj))
    Console().print(table)


def state(obj: Object) -> str:
    """Say where an object stands: a Pod's phase, or the conditions that are true."""
    status = obj.get("status") or {}
    holding = [c["type"] for c in status.get("conditions") or [] if c.get("status") == "True"]
    return str(status.get("phase") or ", ".join(holding))


def proof(obj: Object) -> str:
    """Say what was measured of each target, worst first."""
    records = ((obj.get("status") or {}).get("experiment") or {}).get("containerRecords") or []
    found = [record["proof"] for record in records if record.get("proof")]
    found.sort(key=lambda one: one["verdict"] == "Confirmed")
    return "; ".join(f"{one['verdict']}: {one.get('measured', '')}" for one in found[:3])
