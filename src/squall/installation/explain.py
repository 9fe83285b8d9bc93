"""What one experiment needs: capabilities on a node, and rights in the API. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from squall.api.cluster import Object
from squall.api.experiment import TARGET, ExperimentSpec
from squall.errors import InvalidFault
from squall.faults import kinds
from squall.injection.kind import FaultKind
from squall.injection.privileges import privileges

AUTHOR, CONTROLLER, AGENT = "author", "controller", "agent"


@dataclass(frozen=True, slots=True)
class Right:
    """One right in the API."""

    who: str
    """author, controller or agent."""
    verbs: tuple[str, ...]
    resource: str
    """`plural.group` or, in the core group, the plural; `plural/status.group` as kubectl has it."""
    where: str
    """A namespace; `installation` for that of Squall; empty: no namespace."""
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one experiment needs."""

    kind: str
    name: str
    namespace: str
    agent: bool
    """Must an agent run on the nodes of the targets?"""
    capabilities: Mapping[str, str]
    """Linux capability of that agent -> what for; none where no agent is needed."""
    rights: tuple[Right, ...]


def explain(manifest: Object, namespace: str) -> Explanation:
    """Say what an experiment needs.

    Args:
        manifest: as its author writes it.
        namespace: the one it goes into, where it names none.

    Raises:
        InvalidFault: its kind is not served, or its spec cannot be read.
    """
    kind = kinds().get(manifest["kind"])
    if kind is None or kind.resource.api_version != manifest["apiVersion"]:
        known = ", ".join(sorted(kinds()))
        raise InvalidFault(f"{manifest['kind']} is no experiment; there are {known}")
    name = manifest["metadata"].get("name", "")
    try:
        spec = kind.spec.model_validate(manifest.get("spec") or {})
    except ValidationError as refused:
        first = refused.errors()[0]
        where = ".".join(str(part) for part in ("spec", *first["loc"]))
        raise InvalidFault(f"{manifest['kind']}/{name}: {where}: {first['msg']}") from refused
    own = manifest["metadata"].get("namespace") or namespace
    agent = not kind.by_api(spec)
    needs = kind.needs if kind.needed is None else kind.needed(spec)
    return Explanation(
        manifest["kind"],
        name,
        own,
        agent,
        privileges(needs) if agent else {},
        tuple(_rights(kind, spec, own, agent=agent)),
    )


def touched(spec: ExperimentSpec, own: str) -> list[str]:
    """Name every namespace that an experiment looks into, its own first.

    Args:
        spec: of the experiment.
        own: the namespace it is in; a selector that names none means this one.
    """
    return list(dict.fromkeys((own, *selected(spec, own))))


def selected(spec: ExperimentSpec, own: str) -> list[str]:
    """Name every namespace where an experiment looks for pods.

    Args:
        spec: of the experiment.
        own: the namespace it is in; a selector that names none means this one.
    """
    found: dict[str, None] = {}
    for one in spec.selectors().values():
        named: Iterable[str] = one.selector.pods or one.selector.namespaces or (own,)
        found |= dict.fromkeys(named)
    return list(found)


def _rights(kind: FaultKind, spec: ExperimentSpec, own: str, *, agent: bool) -> Iterable[Right]:
    experiments = f"{kind.resource.plural}.{kind.resource.group}"
    for namespace in touched(spec, own):
        why = "it is in there" if namespace == own else "it may hit pods in there"
        yield Right(AUTHOR, ("create",), experiments, namespace, why)
    controller = CONTROLLER
    read = ("get", "list", "watch")
    yield Right(controller, (*read, "patch"), experiments, own, "serve it; its finalizer")
    status = f"{kind.resource.plural}/status.{kind.resource.group}"
    yield Right(controller, ("patch",), status, own, "tell how it stands")
    action: Any = getattr(spec, "action", "")
    acts = {"pod-kill": ("delete",), "pod-failure": ("patch",)} if not agent else {}
    for namespace in selected(spec, own):
        verbs = (*read, *acts.get(action, ()))
        yield Right(controller, verbs, "pods", namespace, "choose targets" if agent else "act")
        if TARGET in spec.selectors():
            for resource in ("services", "endpointslices.discovery.k8s.io"):
                yield Right(controller, read, resource, namespace, "Services in front of targets")
    for resource in ("namespaces", "nodes"):
        yield Right(controller, read, resource, "", "selectors and policy")
    yield Right(controller, read, "halts.squall.dev", "", "stop when told to")
    for key in dict.fromkeys((one.namespace, one.name) for one in kind.secrets(spec)):
        why = f"Secret {key[1]}, which is read for its author"
        yield Right(AUTHOR, ("get",), "secrets", key[0], why)
        yield Right(controller, ("get",), "secrets", key[0], f"Secret {key[1]}, sealed for agents")
    orders = ("create", "patch", "delete")
    yield Right(controller, (*read, *orders), "nodefaults.squall.dev", "installation", "order")
    yield Right(controller, ("create", "patch"), "events", own, "tell what happens")
    if agent:
        yield Right(AGENT, read, "nodefaults.squall.dev", "installation", "read its orders")
        status = "nodefaults/status.squall.dev"
        yield Right(AGENT, ("patch",), status, "installation", "report, of its own node alone")
        for namespace in selected(spec, own):
            yield Right(AGENT, read, "pods", namespace, "find targets, and check the policy")
        yield Right(AGENT, read, "halts.squall.dev", "", "stop when told to")
