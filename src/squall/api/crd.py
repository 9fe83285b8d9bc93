"""From kinds to what an API server is told of them: `ServedKind` and CustomResourceDefinition."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from squall.api import admission
from squall.api.cluster import HALT, NODE_FAULT, WORKLOAD, Object, Resource
from squall.api.experiment import ExperimentSpec
from squall.api.metadata import PART_OF, SQUALL
from squall.api.node_fault import HaltSpec, NodeFaultSpec, NodeFaultStatus
from squall.api.schema import served_schema, structural
from squall.api.served import AGE, Column, Schema, ServedKind
from squall.api.status import ExperimentStatus
from squall.api.wire import Wire
from squall.api.workload import WorkloadSpec, WorkloadStatus


def served_experiment(
    resource: Resource, spec: type[ExperimentSpec], columns: tuple[tuple[str, str], ...] = ()
) -> ServedKind:
    """Prepare an experiment kind for serving.

    Args:
        resource: its name on the wire.
        spec: its model.
        columns: name and JSON path of what `kubectl get` shows; none means the age alone.
    """
    immutable = {"rule": "self == oldSelf", "message": admission.IMMUTABLE}
    schema = served_schema(
        _said(spec),
        structural(spec) | {"x-kubernetes-validations": [immutable]},
        structural(ExperimentStatus),
    )
    return ServedKind(
        resource,
        schema,
        default=partial(admission.default_experiment, schema),
        validate=partial(admission.validate_experiment, schema, spec),
        columns=tuple(Column(name, path) for name, path in columns) or (AGE,),
        categories=("chaos",),
    )


def own_kinds() -> tuple[ServedKind, ...]:
    """Prepare NodeFault, Halt and Workload for serving."""
    return (
        _own(
            NODE_FAULT,
            NodeFaultSpec,
            NodeFaultStatus,
            columns=(
                Column("Node", ".spec.nodeName"),
                Column("Experiment", ".spec.experiment.name"),
                Column("Phase", ".spec.desiredPhase"),
                AGE,
            ),
            fields=(".spec.nodeName",),
        ),
        _own(HALT, HaltSpec, columns=(Column("Reason", ".spec.reason"), AGE)),
        _own(
            WORKLOAD,
            WorkloadSpec,
            WorkloadStatus,
            columns=(
                Column("Phase", ".status.phase"),
                Column("Restarts", ".status.restarts", "integer"),
                AGE,
            ),
        ),
    )


def definition(kind: ServedKind) -> Object:
    """Write a kind as the CustomResourceDefinition that a cluster installs."""
    resource = kind.resource
    version: dict[str, Any] = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": kind.schema},
    }
    if kind.columns != (AGE,):
        version["additionalPrinterColumns"] = [
            {"name": column.name, "type": column.type, "jsonPath": column.path}
            for column in kind.columns
        ]
    if kind.fields:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.fields]
    if kind.status:
        version["subresources"] = {"status": {}}
    names: dict[str, Any] = {
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
        "plural": resource.plural,
        "singular": resource.kind.lower(),
    }
    names |= dict(_lists(shortNames=kind.short_names, categories=kind.categories))
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{resource.group}",
            # Tells ours from those of an installed Chaos Mesh, which have the same names.
            "labels": {PART_OF: SQUALL},
        },
        "spec": {
            "group": resource.group,
            "names": names,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _own(
    resource: Resource,
    spec: type[Wire],
    status: type[Wire] | None = None,
    *,
    columns: tuple[Column, ...],
    fields: tuple[str, ...] = (),
) -> ServedKind:
    schema: Schema = served_schema(
        _said(spec), structural(spec), None if status is None else structural(status)
    )
    return ServedKind(
        resource,
        schema,
        default=partial(admission.default, schema),
        validate=partial(admission.validate, schema, spec),
        columns=columns,
        status=status is not None,
        fields=fields,
    )


def _said(model: type[Wire]) -> str:
    return " ".join((model.__doc__ or "").split())


def _lists(**lists: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    return ((name, list(values)) for name, values in lists.items() if values)
