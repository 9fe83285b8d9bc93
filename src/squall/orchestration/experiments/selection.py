"""Choose the targets of an experiment: the same function for a run and for its preview."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from squall.api.policy import Extent, Policy
from squall.api.selector import PodSelector
from squall.orchestration.experiments.agents import why_no_agent
from squall.orchestration.experiments.draw import quota, ranked
from squall.orchestration.experiments.matching import matching, missing, why_not
from squall.orchestration.experiments.pods import Container, Inventory, Pod


@dataclass(frozen=True, slots=True)
class Scope:
    """What decides, together with the inventory, who is hit."""

    selectors: Mapping[str, PodSelector]
    """By selector key: `.` and, for a second end, `.Target`."""
    namespace: str
    """Of the experiment."""
    seed: str
    per_container: bool = False
    policy: Policy = field(default_factory=Policy)
    """What the installation lets experiments hit."""
    by_network: bool = False
    """Does the fault change the network, which some pods share with their node?"""
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What the agents of targets must be able to do, by selector key; a key is absent where
    targets need no agent."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One target that was drawn."""

    selector_key: str
    id: str
    """Record id: `namespace/pod` or `namespace/pod/container`."""
    pod: Pod
    container: Container
    """Of a pod target: its first running container."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A pod or container that matches, but cannot be hit now."""

    selector_key: str
    id: str
    reason: str
    told: bool = False
    """Does an event say so? It does where the cluster's owner could change it: no agent, a node
    that lacks something, the policy of the installation."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The candidates of one selector."""

    total: int
    """Running pods that match and that the installation lets be hit: what a percentage is taken
    of."""
    ready: tuple[Pod, ...]
    """Those that have something to hit at this moment."""
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Who is hit, and who is not although it matches."""

    chosen: tuple[Choice, ...]
    skipped: tuple[Skipped, ...]
    empty: str = ""
    """Why there is nothing to do, where a selector found no target, or the installation does not
    let so many be hit; then none is."""


def select(scope: Scope, inventory: Inventory) -> Selection:
    """Choose targets. The same scope and inventory always give the same targets.

    Raises:
        ValueError: a mode, value or field selector that makes no sense; the text says which.
    """
    chosen: list[Choice] = []
    skipped: list[Skipped] = []
    for key, selector in scope.selectors.items():
        pool = pool_of(scope, key, inventory)
        skipped += pool.skipped
        count = quota(selector.mode, selector.value, pool.total, scope.seed, key)
        drawn = drawn_from(scope, key, pool.ready)[:count]
        found = [choice for pod in drawn for choice in choices_in(scope, key, pod)]
        if not found:
            return Selection((), tuple(skipped), _nothing(key, pool, count))
        extent = Extent(hit=len({choice.pod.id for choice in found}), of=pool.total)
        if refusal := scope.policy.refuses_extent(extent):
            return Selection((), tuple(skipped), f"not allowed here: {_which(key)} {refusal}")
        chosen += found
    return Selection(tuple(chosen), tuple(skipped))


def pool_of(scope: Scope, key: str, inventory: Inventory) -> Pool:
    """Collect the candidates of one selector.

    Raises:
        ValueError: the selector cannot be evaluated.
    """
    selector = scope.selectors[key].selector
    skipped = [Skipped(key, name, "does not exist") for name in missing(selector, inventory)]
    total, ready = 0, []
    for pod in matching(selector, inventory, scope.namespace):
        begins = scope.per_container and any(
            container.running for container in pod.named(_container_names(scope, key))
        )
        if reason := why_not(pod, inventory, begins=begins):
            skipped.append(Skipped(key, pod.id, reason))
            continue
        if reason := refused(scope, pod, inventory):
            skipped.append(Skipped(key, pod.id, reason, told=True))
            continue
        total += 1
        if not choices_in(scope, key, pod):
            skipped.append(Skipped(key, pod.id, _no_container(scope, key)))
        elif reason := _no_agent(scope, key, pod, inventory):
            skipped.append(Skipped(key, pod.id, reason, told=True))
        else:
            ready.append(pod)
    return Pool(total, tuple(ready), tuple(skipped))


def refused(scope: Scope, pod: Pod, inventory: Inventory) -> str:
    """Say why the installation lets no experiment hit a pod; empty when it does."""
    annotations = (inventory.namespaces or {}).get(pod.namespace)
    if reason := scope.policy.refuses(pod.namespace, pod.labels, annotations):
        return reason
    if pod.host_network and scope.by_network and not scope.policy.allow_host_network:
        return "shares the network of its node; the installation must allow host network targets"
    return ""


def _no_agent(scope: Scope, key: str, pod: Pod, inventory: Inventory) -> str:
    if key not in scope.needs:
        return ""
    return why_no_agent(pod.node, scope.needs[key], inventory.agents)


def drawn_from(scope: Scope, key: str, pods: Sequence[Pod]) -> list[Pod]:
    """Put pods into the order in which the seed draws them."""
    by_id = {pod.id: pod for pod in pods}
    return [by_id[name] for name in ranked(scope.seed, key, by_id)]


def choices_in(scope: Scope, key: str, pod: Pod) -> list[Choice]:
    """Name what would be hit in one pod: itself, or the containers that are asked for."""
    if not scope.per_container:
        first = pod.first_running
        return [Choice(key, pod.id, pod, first)] if first else []
    names = _container_names(scope, key) or tuple(c.name for c in pod.containers[:1])
    return [
        Choice(key, f"{pod.id}/{container.name}", pod, container)
        for container in pod.named(names)
        if container.running
    ]


def pod_id_of(record_id: str) -> str:
    """Cut the container off a record id."""
    return "/".join(record_id.split("/")[:2])


def _container_names(scope: Scope, key: str) -> Sequence[str]:
    return getattr(scope.selectors[key], "container_names", None) or ()


def _no_container(scope: Scope, key: str) -> str:
    names = _container_names(scope, key) if scope.per_container else ()
    return (
        f"has no running container named {' or '.join(names)}"
        if names
        else ("has no running container")
    )


def _which(key: str) -> str:
    return "spec.selector" if key == "." else "spec.target.selector"


def _nothing(key: str, pool: Pool, count: int) -> str:
    which = _which(key)
    if pool.total and not count:
        return f"no target has been selected: the mode of {which} drew 0 of {pool.total} pods"
    reasons = "; ".join(f"{s.id} {s.reason}" for s in pool.skipped[:3])
    more = f" and {len(pool.skipped) - 3} more" if len(pool.skipped) > 3 else ""  # noqa: PLR2004
    return f"no pod is selected: {which} matches " + (
        f"only pods that cannot be hit ({reasons}{more})" if reasons else "no pod"
    )
