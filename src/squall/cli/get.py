"""`squall get`: objects as a table, without kubectl."""

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from squall.api.cluster import HALT, NODE_FAULT, POD, WORKLOAD, Object, Resource
from squall.cli.options import Kubeconfig, Namespace, parts_of, wait_for
from squall.cli.parts import Access
from squall.cli.resources import resource_named
from squall.faults import kinds

_Columns = Mapping[str, Callable[[Object], str]]
_WIDE = 500
"""Columns where no terminal limits them: programs that read the table want whole lines."""


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(get)


def get(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="networkchaos, pods, workloads, halts, ...")],
    namespace: Namespace = "default",
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="In all of them.", show_default=False)
    ] = False,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List the objects of one kind with what matters of each; experiments with their proof."""
    resource = resource_named(kind)
    one = namespace if resource.namespaced and not everywhere else None

    async def read() -> list[Object]:
        async with parts_of(context).cluster(Access(kubeconfig, namespace)) as cluster:
            return await cluster.list(resource, one)

    found = wait_for(read())
    if not found:
        typer.echo(f"no {resource.plural}" + (f" in namespace {one}" if one else ""), err=True)
        return
    columns = _columns(resource)
    if resource.namespaced and everywhere:
        columns = {"NAMESPACE": lambda obj: str(obj["metadata"]["namespace"]), **columns}
    from rich.console import Console  # noqa: PLC0415  (processes that stay do without)
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(*columns, box=None, pad_edge=False)
    for obj in found:
        table.add_row(*(escape(show(obj)) for show in columns.values()))
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


def state(obj: Object) -> str:
    """Say where an object stands: a Pod's phase, or the conditions that are true."""
    status = obj.get("status") or {}
    holding = [c["type"] for c in status.get("conditions") or [] if c.get("status") == "True"]
    stopped = (status.get("experiment") or {}).get("interrupted")
    return str(status.get("phase") or ", ".join([*holding, *([stopped] if stopped else [])]))


def proof(obj: Object) -> str:
    """Say what kept it from its targets, then what was measured of each, worst first."""
    status = obj.get("status") or {}
    experiment = status.get("experiment") or {}
    # What stopped it is part of the state.
    hidden = {None, "", experiment.get("interrupted")}
    missing = [c for c in status.get("conditions") or [] if c.get("status") == "False"]
    reasons = [c["reason"] for c in missing if c.get("reason") not in hidden]
    records = experiment.get("containerRecords") or []
    found = [record["proof"] for record in records if record.get("proof")]
    found.sort(key=lambda one: one["verdict"] == "Confirmed")
    told = [f"{one['verdict']}: {one.get('measured', '')}".rstrip(": ") for one in found[:3]]
    return "; ".join(
        reasons + told + ([f"and {len(found) - 3} more"] if len(found) > len(told) else [])
    )


def _columns(resource: Resource) -> _Columns:
    name: _Columns = {"NAME": lambda obj: str(obj["metadata"]["name"])}
    if resource.kind in kinds():
        return {**name, "STATE": state, "PROOF": proof}
    more: dict[Resource, _Columns] = {
        POD: {
            "STATE": state,
            "ADDRESS": _at("status", "podIP"),
            "NODE": _at("spec", "nodeName"),
        },
        WORKLOAD: {
            "STATE": state,
            "RESTARTS": _at("status", "restarts"),
            "COMMAND": lambda obj: " ".join(obj["spec"]["command"]),
        },
        NODE_FAULT: {"NODE": _at("spec", "nodeName"), "WANTED": _at("spec", "desiredPhase")},
        HALT: {"REASON": _at("spec", "reason")},
    }
    return {**name, **more.get(resource, {"STATE": state})}


def _at(part: str, field: str) -> Callable[[Object], str]:
    def show(obj: Object) -> str:
        value: Any = (obj.get(part) or {}).get(field)
        return "" if value is None else str(value)

    return show
