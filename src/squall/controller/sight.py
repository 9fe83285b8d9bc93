"""What a controller sees of pods and what is around them: nodes, namespaces, Services.

An installation for one namespace sees no more than that, and its own pods. Nodes belong to no
namespace, so it may be refused them: then it knows those that its pods run on, by name.
"""

from collections.abc import Callable, Mapping
from typing import Any

from squall.api.cluster import ENDPOINT_SLICE, NAMESPACE, NODE, POD, SERVICE, ApiError, Object
from squall.api.policy import Policy
from squall.clock import Clock
from squall.controller.agents import Agents
from squall.controller.cache import Cache
from squall.orchestration.experiments.agents import Abilities
from squall.orchestration.experiments.pods import Inventory, Pod, read_pod
from squall.orchestration.experiments.services import Services, read_addresses, read_endpoints
from squall.telemetry import logger

FORBIDDEN = 403


class Sight:
    """Caches, where to watch for what is in them, and the inventory made of them.

    Args:
        namespace: of the installation.
        policy: which namespace may be hit, and whether namespaces opt in.
        services: are there Services in front of pods, as in a cluster?
        clock: judges whether an agent still runs; None where there is one for all, as on one host.
        own_sealing_key: of that one.
        changed: called when who may be hit has changed.
        own_pod_changed: called when a pod in the namespace of the installation has changed.
    """

    def __init__(
        self,
        namespace: str,
        policy: Policy,
        *,
        services: bool,
        clock: Clock | None = None,
        own_sealing_key: str = "",
        changed: Callable[[Object], None],
        own_pod_changed: Callable[[Object], None],
    ) -> None:
        self._own_sealing_key = own_sealing_key
        self._namespace, self._policy = namespace, policy
        self._changed, self._own_pod_changed = changed, own_pod_changed
        self._pods = Cache(POD, read_pod, self._pod_changed, whole=False)
        self._nodes = Cache(NODE, _labels, changed, whole=False)
        self._namespaces = Cache(NAMESPACE, _annotations, changed, whole=False)
        self._own_pods = Cache(POD, read_pod, own_pod_changed, whole=False)
        self._services = Cache(SERVICE, read_addresses, changed, whole=False)
        self._endpoints = Cache(ENDPOINT_SLICE, read_endpoints, changed, whole=False)
        self._with_services = services
        self._in_front: tuple[tuple[int, ...], Services] = ((), Services())
        self._agents = Agents(clock, changed) if clock else None
        self._agents_refused = False
        self._inventory: tuple[tuple[Any, ...], Inventory] | None = None
        self._nodes_refused = False

    def caches(self) -> list[Cache[Any]]:
        """List what is to be filled before anything can be decided."""
        caches: list[Cache[Any]] = [self._pods, self._nodes]
        if self._policy.opt_in_namespaces:
            caches.append(self._namespaces)
        if self._with_services:
            caches += [self._services, self._endpoints]
        if self._agents:
            caches.append(self._agents.cache)
        return [*caches, self._own_pods] if self._apart else caches

    def namespace_of(self, cache: Cache[Any]) -> str | None:
        """Say where to watch for what a cache holds; None means everywhere."""
        if cache is self._own_pods or (self._agents and cache is self._agents.cache):
            return self._namespace
        targets = (self._pods, self._services, self._endpoints)
        return self._policy.target_namespace or None if cache in targets else None

    def does_without(self, cache: Cache[Any], refused: ApiError) -> bool:
        """Go on without what the API refuses, where that is possible."""
        if refused.code != FORBIDDEN:
            return False
        if cache in (self._services, self._endpoints):
            if not cache.synced.is_set():
                logger(__name__).warning("no Service is known as a target: %s", refused)
            cache.synced.set()
            return True
        if self._agents and cache is self._agents.cache:
            if not cache.synced.is_set():
                logger(__name__).info("nodes without agents are not known: %s", refused)
            self._agents_refused = True
            cache.synced.set()
            return True
        if cache is not self._nodes:
            return False
        if not self._policy.target_namespace:
            return False
        if not self._nodes_refused:
            logger(__name__).info("nodes are known by their pods alone: %s", refused)
        self._nodes_refused = True
        self._nodes.synced.set()
        return True

    def own_pod(self, name: str) -> Pod | None:
        """Give a pod in the namespace of the installation; None where none is known."""
        cache = self._own_pods if self._apart else self._pods
        return cache.values.get((self._namespace, name))

    def sealing_key(self, node: str) -> str:
        """Give the public key of a node's agent; empty where none is known."""
        return self._agents.sealing_key(node) if self._agents else self._own_sealing_key

    def inventory(self) -> Inventory:
        """Give what selectors may choose from now; made anew only when something has changed."""
        services, agents = self._services_now(), self._agents_now()
        caches = (self._pods, self._nodes, self._namespaces, self._services, self._endpoints)
        version = (*(cache.changes for cache in caches), agents)
        if self._inventory is None or self._inventory[0] != version:
            nodes = {name: labels for (_, name), labels in self._nodes.values.items()}
            annotations = {name: notes for (_, name), notes in self._namespaces.values.items()}
            pods = list(self._pods.values.values())
            labelled = not self._nodes_refused or bool(nodes)
            if not labelled:
                nodes = {pod.node: {} for pod in pods if pod.node}
            found = Inventory(
                pods, nodes, annotations, agents, nodes_labelled=labelled, services=services
            )
            self._inventory = (version, found)
        return self._inventory[1]

    def _services_now(self) -> Services:
        """Give the Services; made anew only when one of them has changed, which pods do oftener."""
        version = (self._services.changes, self._endpoints.changes)
        if self._in_front[0] != version:
            endpoints = list(self._endpoints.values.values())
            self._in_front = (version, Services(dict(self._services.values), endpoints))
        return self._in_front[1]

    def _agents_now(self) -> Mapping[str, Abilities] | None:
        known = self._agents.known() if self._agents else None
        return None if self._agents_refused and not known else known

    @property
    def _apart(self) -> bool:
        """Are the installation's own pods among none that may be hit?"""
        return self._policy.target_namespace not in {"", self._namespace}

    def _pod_changed(self, pod: Object) -> None:
        if pod["metadata"].get("namespace") == self._namespace:
            self._own_pod_changed(pod)
        self._changed(pod)


def _labels(node: Object) -> Mapping[str, str]:
    return node["metadata"].get("labels") or {}


def _annotations(namespace: Object) -> Mapping[str, str]:
    return namespace["metadata"].get("annotations") or {}
