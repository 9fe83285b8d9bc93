"""Write down for each node what its agent shall make true."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from squall.api.names import fitting
from squall.api.node_fault import ExperimentReference, NodeFaultSpec, NodeFaultTarget
from squall.api.policy import Extent
from squall.api.status import Record
from squall.injection.kind import FaultKind, Peer, Peers
from squall.orchestration.experiments.facts import Assigned, Key, Seen
from squall.orchestration.experiments.matching import namespaces_of
from squall.orchestration.experiments.pods import Container, Pod
from squall.orchestration.experiments.records import MOST_DETAILED
from squall.orchestration.experiments.selection import pod_id_of
from squall.orchestration.experiments.services import Services

DEADLINE_GRACE = timedelta(seconds=0.5)
"""How much later than the controller an agent ends a fault by itself."""

Shares = Mapping[str, dict[str, Any] | None]
"""What targets get, by selector key; None: nothing, so they are left alone."""


@dataclass(frozen=True, slots=True)
class Place:
    """A target and the node it is on."""

    node: str
    target: NodeFaultTarget


def node_fault_name(kind: str, uid: str, node: str) -> str:
    """Name the NodeFault of one experiment on one node; the same at every try."""
    return fitting(f"{kind.lower()}-{uid[:8]}-{node}")


def places(assigned: Iterable[Assigned]) -> dict[Key, Place]:
    """Say where every assigned target is."""
    return {
        (target.selector_key, target.id): Place(one.spec.node_name, target)
        for one in assigned
        for target in one.spec.targets
    }


def located(
    record: Record, pods: Mapping[str, Pod], before: Place | None, *, api_node: str = ""
) -> Place | None:
    """Find where a target is now; None where nothing of it runs.

    A container or pod that was replaced since `before` is the next incarnation of the target.

    Args:
        record: the target.
        pods: by record id.
        before: where it was.
        api_node: the node that stands for all pods, where the API alone acts on them; what runs in
            a pod does not matter then, and may be the fault's own doing.
    """
    pod = pods.get(pod_id_of(record.id))
    if pod and api_node:
        return _by_api(record, pod, before, api_node)
    container = _container(record, pod) if pod else None
    if pod is None or container is None or not pod.node:
        return None
    incarnation = before.target.incarnation if before else 0
    if before and (before.target.pod_uid, before.target.container_id) != (
        pod.uid,
        container.container_id,
    ):
        incarnation += 1
    target = NodeFaultTarget(
        id=record.id,
        selector_key=record.selector_key,
        pod_uid=pod.uid,
        container_id=container.container_id,
        host_network=pod.host_network,
        incarnation=incarnation,
    )
    return Place(pod.node, target)


def _by_api(record: Record, pod: Pod, before: Place | None, node: str) -> Place:
    incarnation = before.target.incarnation if before else 0
    target = NodeFaultTarget(
        id=record.id,
        selector_key=record.selector_key,
        pod_uid=pod.uid,
        host_network=pod.host_network,
        incarnation=incarnation + (before is not None and before.target.pod_uid != pod.uid),
    )
    return Place(node, target)


@dataclass(frozen=True)
class Assignments:
    """The NodeFaults that one experiment should have."""

    kind: FaultKind
    seen: Seen
    assigned: Sequence[Assigned]
    """Those that it has."""
    records: Sequence[Record]
    pods: Mapping[str, Pod]
    ends: datetime | None
    services: Services = field(default_factory=Services)
    """In front of pods."""
    refused: bool = False
    """True where the room does not accept the spec, so that `given` is empty."""
    api_node: str = ""
    """The node that stands for all pods, where the API alone brings this fault about."""
    totals: Callable[[], Mapping[str, int]] = dict
    """Counts the pods that may be hit, by selector key; asked only where something is written."""

    @cached_property
    def given(self) -> Shares:
        """Work out what the targets of each selector get.

        Raises:
            InvalidFault: the room refuses the spec.
            ValueError: it cannot be expressed.
        """
        spec = self.seen.spec
        if spec is None or self.refused:
            return {}
        peers: Peers = {key: self._peers(key) for key in spec.selectors()}
        faults = {key: self.kind.share(spec, key, peers) for key in peers}
        return {
            key: fault.model_dump(mode="json", by_alias=True, exclude_none=True) if fault else None
            for key, fault in faults.items()
        }

    def gives_nothing(self, selector_key: str) -> bool:
        """Are targets of this selector left alone?"""
        return self.given.get(selector_key, {}) is None

    @cached_property
    def there(self) -> Mapping[str, NodeFaultSpec]:
        """What each node's agent has been told so far."""
        return {one.spec.node_name: one.spec for one in self.assigned}

    def place(self, record: Record, before: Place | None) -> Place | None:
        """Find where a target is now; None where nothing of it runs, or it is no target of ours."""
        if not self._may_be_ours(record):
            return None
        return located(record, self.pods, before, api_node=self.api_node)

    def _may_be_ours(self, record: Record) -> bool:
        """Could its selector have chosen it? Others than the controller may have written it."""
        spec = self.seen.spec
        if spec is None:
            return True  # nothing is begun then
        selector = spec.selectors().get(record.selector_key)
        if selector is None:
            return False
        namespaces = namespaces_of(selector.selector, self.seen.namespace)
        return record.id.partition("/")[0] in namespaces

    @cached_property
    def extent(self) -> dict[str, Extent]:
        """Say how much of what each selector matches is hit, over all nodes.

        What was said of so many once stays, as they were chosen by it: kills leave fewer pods that
        match, and other pods come and go.
        """
        pods: dict[str, set[str]] = {}
        for record in self.records:
            pods.setdefault(record.selector_key, set()).add(pod_id_of(record.id))
        hit = {key: len(ids) for key, ids in pods.items()}
        said = next((one.extent for one in self.there.values() if one.extent), {})
        if hit == {key: extent.hit for key, extent in said.items()}:
            return said
        totals = self.totals()
        return {
            key: Extent(hit=count, of=max(count, totals.get(key, 0))) for key, count in hit.items()
        }

    def running(self, where: Iterable[Place], *, anew: bool) -> dict[str, NodeFaultSpec]:
        """Write what has to change, by node, so that every target is hit where it is.

        Args:
            where: every target that shall be hit.
            anew: also rewrite what runs already, as a live selection does.
        """
        by_node: dict[str, list[NodeFaultTarget]] = {}
        for place in where:
            by_node.setdefault(place.node, []).append(place.target)
        wanted: dict[str, NodeFaultSpec] = {}
        for node, targets in by_node.items():
            old = self.there.get(node)
            if old and old.desired_phase == "Run" and old.targets == targets and not anew:
                continue
            wanted[node] = self._spec(node, targets, "Run")
        for node, old in self.there.items():
            if node not in by_node:
                wanted[node] = old.model_copy(update={"targets": []})
        return self._changes(wanted)

    def stopping(self, touched: Iterable[Record]) -> dict[str, NodeFaultSpec]:
        """Write what has to change, by node, so that everything is taken back.

        A touched target that no NodeFault lists is listed again, for the sake of its agent's word.
        """
        known = places(self.assigned)
        wanted = {
            node: old.model_copy(update={"desired_phase": "Stop"})
            for node, old in self.there.items()
        }
        for record in touched:
            place = self.place(record, None)
            if place and (record.selector_key, record.id) not in known:
                old = wanted.get(place.node) or self._spec(place.node, [], "Stop")
                targets = [*old.targets, place.target]
                wanted[place.node] = old.model_copy(update={"targets": targets})
        return self._changes(wanted)

    def _changes(self, wanted: Mapping[str, NodeFaultSpec]) -> dict[str, NodeFaultSpec]:
        return {node: spec for node, spec in wanted.items() if spec != self.there.get(node)}

    def _peers(self, key: str) -> list[Peer]:
        mine = [record for record in self.records if record.selector_key == key]
        pods = [self.pods.get(pod_id_of(record.id)) for record in mine]
        selected = [
            Peer(record.id, pod.addresses if pod else ())
            for record, pod in zip(mine, pods, strict=True)
        ]
        services = self.services.in_front_of([a for peer in selected for a in peer.addresses])
        in_front = [Peer("/".join(name), (), found) for name, found in services.items()]
        return [*selected, *in_front]

    def _spec(
        self, node: str, targets: Sequence[NodeFaultTarget], phase: Literal["Run", "Stop"]
    ) -> NodeFaultSpec:
        seen, spec = self.seen, self.seen.spec
        return NodeFaultSpec(
            node_name=node,
            experiment=ExperimentReference(
                kind=seen.kind,
                namespace=seen.namespace,
                name=seen.name,
                uid=seen.uid,
                created=seen.created,
            ),
            desired_phase=phase,
            one_shot=spec is not None and self.kind.one_shot(spec),
            faults={key: fault for key, fault in self.given.items() if fault is not None},
            targets=list(targets),
            deadline=self.ends + DEADLINE_GRACE if self.ends else None,
            extent=self.extent,
            when_cut_off=spec.when_cut_off if spec else "restore",
            sealed=self.there[node].sealed if node in self.there else None,
            proof=len(self.records) <= MOST_DETAILED,
        )


def _container(record: Record, pod: Pod) -> Container | None:
    name = record.id.split("/")[2:]
    if not name:
        return pod.first_running
    return next((c for c in pod.named(name) if c.running), None)
