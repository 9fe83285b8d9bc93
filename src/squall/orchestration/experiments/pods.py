"""Pods and nodes as selection sees them: the few fields it needs, read once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from squall.api.cluster import Object
from squall.orchestration.experiments.agents import Abilities
from squall.orchestration.experiments.services import Services


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod."""

    name: str
    container_id: str = ""
    """With the runtime's prefix; empty before its first start."""
    running: bool = False


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod at one moment."""

    namespace: str
    name: str
    uid: str = ""
    node: str = ""
    """Empty until it is scheduled."""
    phase: str = "Running"
    deleting: bool = False
    host_network: bool = False
    addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    containers: tuple[Container, ...] = ()
    """In the order of the pod's spec."""
    others: tuple[Container, ...] = ()
    """Init, sidecar and ephemeral containers: hit only where they are named."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """What field selectors may ask for, by path."""

    @property
    def id(self) -> str:
        """Give the record id of the whole pod: `namespace/name`."""
        return f"{self.namespace}/{self.name}"

    def named(self, names: Collection[str]) -> list[Container]:
        """List the containers of any sort that have one of these names."""
        return [c for c in (*self.containers, *self.others) if c.name in names]

    @property
    def first_running(self) -> Container | None:
        """The container whose namespaces stand for the pod."""
        return next((c for c in self.containers if c.running), None)


@dataclass(frozen=True)
class Inventory:
    """Everything that selectors may choose from."""

    pods: Sequence[Pod] = ()
    nodes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Labels of every known node, by its name."""
    namespaces: Mapping[str, Mapping[str, str]] | None = None
    """Annotations of every namespace, by its name; None where nobody has to know them."""
    agents: Mapping[str, Abilities] | None = None
    """What each node with an agent can do, by its name; None where nobody has to know."""
    nodes_labelled: bool = True
    """False where nodes may not be read: then those are known that pods run on, by name alone."""
    services: Services = field(default_factory=Services)
    """None where there can be none, as on one host."""

    @cached_property
    def by_id(self) -> Mapping[str, Pod]:
        """Every pod by its record id; made once for all steps that see the same pods."""
        return {pod.id: pod for pod in self.pods}


def read_pod(obj: Object) -> Pod:
    """Read a pod of the core API."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    namespace, name = meta.get("namespace") or "default", meta["name"]
    phase = status.get("phase") or "Pending"
    return Pod(
        namespace=namespace,
        name=name,
        uid=meta.get("uid", ""),
        node=spec.get("nodeName") or "",
        phase=phase,
        deleting="deletionTimestamp" in meta,
        host_network=bool(spec.get("hostNetwork")),
        addresses=_addresses(status),
        labels=meta.get("labels") or {},
        annotations=meta.get("annotations") or {},
        containers=_containers(spec, status, "containers", "containerStatuses"),
        others=(
            *_containers(spec, status, "initContainers", "initContainerStatuses"),
            *_containers(spec, status, "ephemeralContainers", "ephemeralContainerStatuses"),
        ),
        fields={
            "metadata.name": name,
            "metadata.namespace": namespace,
            "spec.nodeName": spec.get("nodeName") or "",
            "spec.restartPolicy": spec.get("restartPolicy") or "",
            "spec.schedulerName": spec.get("schedulerName") or "",
            "spec.serviceAccountName": spec.get("serviceAccountName") or "",
            "status.phase": phase,
            "status.podIP": status.get("podIP") or "",
            "status.nominatedNodeName": status.get("nominatedNodeName") or "",
        },
    )


def _addresses(status: Object) -> tuple[str, ...]:
    listed = [entry["ip"] for entry in status.get("podIPs") or [] if entry.get("ip")]
    return tuple(listed or [status["podIP"]] if listed or status.get("podIP") else [])


def _containers(spec: Object, status: Object, sort: str, told: str) -> tuple[Container, ...]:
    states = {s.get("name"): s for s in status.get(told) or ()}
    return tuple(_container(c["name"], states.get(c["name"]) or {}) for c in spec.get(sort) or ())


def _container(name: str, state: Object) -> Container:
    container_id = state.get("containerID") or ""
    now = state.get("state") or {}
    # A status without a state is taken by its id alone, as not every kubelet fills it in.
    return Container(name, container_id, bool(container_id) and ("running" in now or not now))
