"""Does a pod match a selector? Upstream's rules, with a reason for every pod left out."""

from collections.abc import Collection, Mapping

from squall.api.selector import PodSelectorSpec, Requirement
from squall.orchestration.experiments.pods import Inventory, Pod

_COMPLETED = ("Succeeded", "Failed")


def matching(selector: PodSelectorSpec, inventory: Inventory, namespace: str) -> list[Pod]:
    """Find the pods that a selector means, whatever state they are in.

    A `pods` map beats every other rule; all others must hold together.

    Args:
        selector: what the author wrote.
        inventory: pods and nodes to choose from.
        namespace: of the experiment; searched where the selector names none.

    Raises:
        ValueError: a field selector names a field that pods cannot be selected by, or nodes are
            selected by labels that nobody may read here.

    Source: chaos-mesh pkg/selector/pod/selector.go.
    """
    if selector.pods:
        listed = {f"{space}/{name}" for space, names in selector.pods.items() for name in names}
        return [pod for pod in inventory.pods if pod.id in listed]
    namespaces = namespaces_of(selector, namespace)
    nodes = _nodes(selector, inventory)
    return [
        pod
        for pod in inventory.pods
        if pod.namespace in namespaces
        and (nodes is None or pod.node in nodes)
        and _has_all(pod.labels, selector.label_selectors)
        and _has_all(pod.annotations, selector.annotation_selectors)
        and _has_fields(pod, selector.field_selectors)
        and all(_meets(pod.labels, need) for need in selector.expression_selectors)
        and _in_phase(pod.phase, selector.pod_phase_selectors)
    ]


def namespaces_of(selector: PodSelectorSpec, namespace: str) -> Collection[str]:
    """Name the namespaces in which a selector can find anything, as `matching` reads it."""
    return selector.pods or selector.namespaces or (namespace,)


def missing(selector: PodSelectorSpec, inventory: Inventory) -> list[str]:
    """Name the listed pods that do not exist."""
    there = {pod.id for pod in inventory.pods}
    listed = (f"{space}/{n}" for space, names in selector.pods.items() for n in names)
    return [name for name in listed if name not in there]


def why_not(pod: Pod, inventory: Inventory, *, begins: bool = False) -> str:
    """Say why a matching pod cannot be a target now; empty when it can.

    Args:
        pod: it matches.
        inventory: what else there is.
        begins: a container that is asked for runs, though the pod's init containers have not ended.
    """
    if pod.phase in _COMPLETED:
        return f"is completed ({pod.phase})"
    if pod.deleting:
        return "is being deleted"
    if pod.phase != "Running" and not (begins and pod.phase == "Pending"):
        return f"is not running ({pod.phase})"
    if pod.node not in inventory.nodes:
        return f"is on node {pod.node!r}, which is not known here"
    return ""


def _nodes(selector: PodSelectorSpec, inventory: Inventory) -> Collection[str] | None:
    """Unite the listed nodes with those that carry the labels; None means any node."""
    if not selector.nodes and not selector.node_selectors:
        return None
    if selector.node_selectors and not inventory.nodes_labelled:
        why = "this installation is for one namespace and may not read nodes"
        raise ValueError(f"nodeSelectors cannot be used here: {why}; name them in nodes")
    labelled = (
        {n for n, labels in inventory.nodes.items() if _has_all(labels, selector.node_selectors)}
        if selector.node_selectors
        else set()
    )
    return labelled | set(selector.nodes)


def _has_all(there: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(there.get(key) == value for key, value in wanted.items())


def _has_fields(pod: Pod, wanted: Mapping[str, str]) -> bool:
    for path, value in wanted.items():
        if path not in pod.fields:
            known = ", ".join(pod.fields)
            raise ValueError(f"field label not supported: {path}; pods have {known}")
        if pod.fields[path] != value:
            return False
    return True


def _meets(labels: Mapping[str, str], need: Requirement) -> bool:
    there, values = labels.get(need.key), need.values or ()
    match need.operator:
        case "In":
            return there is not None and there in values
        case "NotIn":
            return there is None or there not in values
        case "Exists":
            return there is not None
        case "DoesNotExist":
            return there is None
    raise ValueError(f"operator {need.operator!r} is not a valid label selector operator")


def _in_phase(phase: str, rules: Collection[str]) -> bool:
    """Any of the plain phases, and none of those behind a `!`."""
    wanted = {rule for rule in rules if not rule.startswith("!")}
    excluded = {rule.removeprefix("!").strip() for rule in rules if rule.startswith("!")}
    return phase not in excluded and (not wanted or phase in wanted)
