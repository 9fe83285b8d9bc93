"""What the policy of the installation says to the targets of this node, whoever named them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from squall.api.cluster import NAMESPACE, POD, Change, Event, Object, Resource
from squall.api.node_fault import NodeFaultSpec, NodeFaultTarget
from squall.api.policy import EVERYTHING, Policy
from squall.injection.kind import FaultKind
from squall.node.assignments import Assignment
from squall.node.holdings import Judged
from squall.node.leases import Standing
from squall.node.targets import bare, container_ids

FREE = Policy()
"""No limits: nothing needs to be known of a target."""


class Refusal(NamedTuple):
    """Why a fault must not act on a target."""

    why: str
    final: bool = True
    """False where it may turn out otherwise as soon as more is known."""


@dataclass(slots=True)
class _Pod:
    """A pod of this node as the agent itself sees it."""

    id: str
    """`namespace/name`."""
    labels: Mapping[str, str]
    host_network: bool
    containers: set[str] = field(default_factory=set)
    """Ids of all that were ever seen of it, without prefix."""


class Limits:
    """Checks targets against a policy, by what this agent sees of pods and namespaces.

    A NodeFault is not believed: it names a pod, and whoever wrote it may have named another
    container with it.
    """

    def __init__(self, policy: Policy = FREE) -> None:
        self._policy = policy
        self._pods: dict[str, _Pod] = {}
        self._annotations: dict[str, Mapping[str, str]] = {}

    @property
    def watched(self) -> tuple[Resource, ...]:
        """What must have been listed before anything may begin."""
        if self._policy == FREE:
            return ()
        return (POD, NAMESPACE) if self._policy.opt_in_namespaces else (POD,)

    def saw_pod(self, event: Event) -> bool:
        """Take in a change of a pod; True when an answer may have changed with it."""
        if event.change is Change.SYNCED:
            return False
        uid = str(event.object["metadata"]["uid"])
        if event.change is Change.DELETED:
            self._pods.pop(uid, None)
            return False
        before, now = self._pods.get(uid), _read(event.object)
        if before is not None:
            now.containers |= before.containers
        self._pods[uid] = now
        return now != before

    def saw_namespace(self, event: Event) -> bool:
        """Take in a change of a namespace; True when an answer may have changed with it."""
        if event.change is Change.SYNCED:
            return False
        metadata = event.object["metadata"]
        found = {} if event.change is Change.DELETED else metadata.get("annotations") or {}
        changed = self._annotations.get(metadata["name"]) != found
        self._annotations[metadata["name"]] = found
        return changed

    def refuses(
        self, judged: Judged, assignment: Assignment, kinds: Mapping[str, FaultKind]
    ) -> Refusal | None:
        """Say why a fault that may act now must not; None when it may, or does not act anyway."""
        if judged.standing is not Standing.RUNS:
            return None
        spec, target = judged.held.spec, assignment.target
        kind = kinds[assignment.key.kind]
        pod = self._pods.get(target.pod_uid)
        if why := self._beyond_network(target, kind, pod) or self._beyond(spec, target):
            return Refusal(why)
        if not self._asks_pods:
            return None
        namespace = target.id.partition("/")[0]
        if pod is None or pod.id not in {target.id, target.id.rpartition("/")[0]}:
            return Refusal(f"{target.id}: this agent sees no such pod on its node", final=False)
        if target.container_id and bare(target.container_id) not in pod.containers:
            return Refusal(f"{target.id}: this agent sees no such container of it", final=False)
        why = self._policy.refuses(namespace, pod.labels, self._annotations.get(namespace))
        return Refusal(f"{target.id} {why}") if why else None

    @property
    def _asks_pods(self) -> bool:
        return self._policy.model_copy(update={"allow_host_network": False}) != FREE

    def _beyond_network(self, target: NodeFaultTarget, kind: FaultKind, pod: _Pod | None) -> str:
        on_host = target.host_network or (pod is not None and pod.host_network)
        if not (on_host and kind.by_network) or self._policy.allow_host_network:
            return ""
        return (
            f"{target.id} is on the network of its node, and so is this agent; "
            "allow host network targets in the installation if that is meant"
        )

    def _beyond(self, spec: NodeFaultSpec, target: NodeFaultTarget) -> str:
        namespace = target.id.partition("/")[0]
        if self._policy.target_namespace not in {"", namespace}:  # its pods are not shown to us
            return f"{target.id} {self._policy.refuses(namespace, {}, None)}"
        if self._policy.most_percent == EVERYTHING:
            return ""
        extent = spec.extent.get(target.selector_key)
        if extent is None:
            asks = f"this installation allows {self._policy.most_percent} %"
            return f"{asks}, and the NodeFault does not say how many pods it hits"
        why = self._policy.refuses_extent(extent)
        return f"the experiment {why}" if why else ""


def _read(pod: Object) -> _Pod:
    metadata = pod["metadata"]
    return _Pod(
        id=f"{metadata['namespace']}/{metadata['name']}",
        labels=metadata.get("labels") or {},
        host_network=bool((pod.get("spec") or {}).get("hostNetwork")),
        containers=set(container_ids(pod)),
    )
