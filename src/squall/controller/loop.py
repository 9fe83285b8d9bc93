"""The controller: watches everything, decides by a pure step, carries out; one task per object."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from prometheus_client import CollectorRegistry

from squall.api.cluster import (
    HALT,
    NODE_FAULT,
    ApiError,
    Change,
    Cluster,
    Event,
    Object,
)
from squall.api.metadata import INSTALL_NAMESPACE
from squall.api.policy import Policy
from squall.clock import Clock
from squall.controller.cache import Cache, name_of
from squall.controller.carry_out import Carrier
from squall.controller.lease import Leadership
from squall.controller.metrics import ExperimentMetrics
from squall.controller.reading import read_assigned, read_experiment
from squall.controller.recorder import Recorder
from squall.controller.secrets import Secrets
from squall.controller.sight import Sight
from squall.controller.work_queue import Again, WorkQueue
from squall.injection.kind import FaultKind
from squall.metrics import REGISTRY
from squall.orchestration.experiments.facts import Assigned, Decision, Facts, Seen
from squall.orchestration.experiments.step import step
from squall.telemetry import logger

Key = tuple[str, str, str]
"""Kind, namespace and name of an experiment."""

WATCH_RETRY_SECONDS = 5.0
REFUSED_RETRY_SECONDS = 300.0
"""When to ask again for what there is no right to, and what can be done without."""


class Controller:
    """Drives every experiment of every kind that there is a room for.

    Two controllers may run: one acts, the other stands by with warm caches.

    Args:
        cluster: the API.
        clock: for deadlines, the lease and backoff.
        kinds: fault kinds by their name on the wire.
        lease_seconds: silence after which agents heal their targets.
        namespace: of the installation; NodeFaults and the lease live there.
        policy: what this installation lets experiments hit; None: everything.
        api_node: the node that stands for this controller, where it brings about by itself what
            needs the API alone; empty where the agents of the pods' nodes do.
        identity: who holds the lease; a controller restarted under its own goes on at once.
        registry: where its metrics are shown.
        sealing_key: public, of the agent, where there is one on this host and no Lease of it.
        leading: called whenever it begins or ceases to lead.
    """

    def __init__(  # noqa: PLR0913  (one argument for each port and setting)
        self,
        cluster: Cluster,
        clock: Clock,
        kinds: Mapping[str, FaultKind],
        *,
        lease_seconds: float = 60.0,
        namespace: str = INSTALL_NAMESPACE,
        policy: Policy | None = None,
        api_node: str = "",
        identity: str,
        registry: CollectorRegistry = REGISTRY,
        sealing_key: str = "",
        leading: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._cluster, self._clock, self._kinds = cluster, clock, kinds
        self._namespace, self._lease_seconds, self._registry = namespace, lease_seconds, registry
        self._policy, self._api_node = policy or Policy(), api_node
        self._leading = leading
        self._queue: WorkQueue[Key] = WorkQueue(self._work, clock)
        self._sight = Sight(
            namespace,
            self._policy,
            services=bool(api_node),
            clock=clock if api_node else None,
            own_sealing_key=sealing_key,
            changed=self._pods_changed,
            own_pod_changed=lambda _: self._leadership.look_again(),
        )
        self._halts = Cache(HALT, _reason, self._halt_changed)
        self._node_faults = Cache(NODE_FAULT, read_assigned, self._node_fault_changed)
        self._experiments = {
            name: Cache(kind.resource, lambda obj: obj, self._experiment_changed)
            for name, kind in kinds.items()
        }
        self._assigned: dict[Key, set[str]] = {}
        self._follows_pods: set[Key] = set()
        self._leadership = Leadership(
            cluster,
            clock,
            namespace=namespace,
            identity=identity,
            lease_seconds=lease_seconds,
            changed=self._lead,
            pod_of=self._sight.own_pod,
        )
        self._secrets = Secrets(cluster, self._sight.sealing_key)
        self._recorder = Recorder(cluster, clock)
        self._carrier = Carrier(cluster, clock, namespace, self._node_faults, self._recorder)

    async def run(self) -> None:
        """Control until cancelled; leaves everything as it is then, for the next one."""
        metrics = ExperimentMetrics(self._seen, self._recorder.emitted, self._clock.now)
        self._registry.register(metrics)
        try:
            async with asyncio.TaskGroup() as group:
                for cache in (*self._world(), *self._experiments.values()):
                    group.create_task(self._follow(cache))
                group.create_task(self._leadership.run())
                group.create_task(self._recorder.run())
                group.create_task(self._queue.run())
        finally:
            self._registry.unregister(metrics)

    async def hand_over(self) -> None:
        """Stop acting and release the lease, so that another leads at once; then cancel `run`."""
        await self._leadership.release()

    def missing(self) -> str:
        """Name what has not been listed yet; empty when everything has."""
        caches = (*self._world(), *self._experiments.values())
        return ", ".join(c.resource.plural for c in caches if not c.synced.is_set())

    def _world(self) -> list[Cache[Any]]:
        return [*self._sight.caches(), self._halts, self._node_faults]

    async def _follow(self, cache: Cache[Any]) -> None:
        while True:
            wait = WATCH_RETRY_SECONDS
            try:
                events = self._cluster.watch(cache.resource, self._namespace_of(cache))
                async with aclosing(events):
                    async for event in events:
                        self._take(cache, event)
            except ApiError as refused:
                if self._sight.does_without(cache, refused):
                    wait = REFUSED_RETRY_SECONDS
                    self._ask_all()
                else:
                    logger(__name__).warning("%s not watched: %s", cache.resource.plural, refused)
            await self._clock.sleep(wait)

    def _namespace_of(self, cache: Cache[Any]) -> str | None:
        if cache is self._node_faults:
            return self._namespace
        if cache in self._experiments.values():
            return self._policy.target_namespace or None
        return self._sight.namespace_of(cache)

    def _take(self, cache: Cache[Any], event: Event) -> None:
        try:
            cache.take(event)
            if event.change is Change.SYNCED:
                self._ask_all()
        except Exception:  # noqa: BLE001  (one unreadable object must not hide all others)
            meta = event.object.get("metadata") or {}
            logger(__name__).exception(
                "%s %s/%s cannot be read",
                cache.resource.kind,
                meta.get("namespace"),
                meta.get("name"),
            )

    def _complete(self, kind: str) -> bool:
        """Is everything known that decides about experiments of a kind?"""
        return all(cache.synced.is_set() for cache in (*self._world(), self._experiments[kind]))

    def _lead(self, leads: bool) -> None:
        if leads:
            self._ask_all()
        else:
            self._queue.stop()
        self._leading(leads)

    async def _work(self, key: Key) -> Again:
        """Take one experiment a step further; the only place where anything may be caught."""
        if not self._leadership.leads or not self._complete(key[0]):
            return Again()
        try:
            return await self._reconcile(key)
        except ApiError as refused:
            logger(__name__).info("%s/%s/%s: %s", *key, refused)
        except Exception:  # noqa: BLE001  (a bug with one experiment must not stop the others)
            logger(__name__).exception("%s/%s/%s: bug in the controller", *key)
        return Again(retry=True)

    async def _reconcile(self, key: Key) -> Again:
        kind, namespace, name = key
        cache = self._experiments[kind]
        obj = cache.objects.get((namespace, name))
        if obj is not None and (rest := self._carrier.rests(obj)) > 0:
            return Again(seconds=rest)
        seen = read_experiment(self._kinds[kind], obj) if obj else None
        facts, strangers = self._facts(key, seen)
        await self._carrier.remove(strangers)
        if obj is None or seen is None:
            self._follows_pods.discard(key)
            return Again()
        now = self._clock.now()
        decision = step(facts, now)
        secrets = await self._secrets.complete(facts.kind, seen, facts.assigned, decision)
        decision, look_again = secrets
        if (rest := self._carrier.too_early(seen.uid, decision)) > 0:
            return Again(seconds=rest)
        self._note(key, decision)
        await self._carrier.carry_out(decision, cache, obj)
        if decision.release:
            self._carrier.forget(seen.uid)
        wakes = (decision.wake_at - now).total_seconds() if decision.wake_at else None
        moments = [moment for moment in (wakes, look_again) if moment is not None]
        return Again(seconds=min(moments, default=None), retry=decision.retry)

    def _facts(self, key: Key, seen: Seen | None) -> tuple[Facts, list[str]]:
        """Gather facts, and name NodeFaults of an earlier experiment with the same name."""
        mine: list[Assigned] = []
        strangers: list[str] = []
        for name in sorted(self._assigned.get(key, ())):
            assigned = self._node_faults.values[self._namespace, name]
            if seen is not None and assigned.spec.experiment.uid == seen.uid:
                mine.append(assigned)
            else:
                strangers.append(name)
        facts = Facts(
            kind=self._kinds[key[0]],
            experiment=seen,
            assigned=mine,
            inventory=self._sight.inventory(),
            halt=next((why for why in self._halts.values.values() if why is not None), None),
            lease_seconds=self._lease_seconds,
            policy=self._policy,
            api_node=self._api_node,
        )
        return facts, strangers

    def _note(self, key: Key, decision: Decision) -> None:
        if decision.follows_pods:
            self._follows_pods.add(key)
        else:
            self._follows_pods.discard(key)

    def _seen(self) -> list[Seen]:
        return [
            read_experiment(self._kinds[kind], obj)
            for kind, cache in self._experiments.items()
            for obj in cache.objects.values()
        ]

    def _ask_all(self) -> None:
        for kind, cache in self._experiments.items():
            for namespace, name in cache.objects:
                self._queue.ask((kind, namespace, name))
        for key in self._assigned:
            self._queue.ask(key)

    def _experiment_changed(self, obj: Object) -> None:
        self._queue.ask((obj["kind"], *name_of(obj)))

    def _node_fault_changed(self, obj: Object) -> None:
        owner = obj["spec"]["experiment"]
        key = (owner["kind"], owner["namespace"], owner["name"])
        if key[0] not in self._kinds:
            return
        name = obj["metadata"]["name"]
        if name_of(obj) in self._node_faults.values:
            self._assigned.setdefault(key, set()).add(name)
        else:
            self._assigned.get(key, set()).discard(name)
            if not self._assigned.get(key):
                self._assigned.pop(key, None)
        self._queue.ask(key)

    def _pods_changed(self, _: Object) -> None:
        for key in self._follows_pods:
            self._queue.ask(key)

    def _halt_changed(self, _: Object) -> None:
        self._ask_all()


def _reason(halt: Object) -> str | None:
    """Read why; None when somebody has lifted it, even if a finalizer still keeps the object."""
    if halt["metadata"].get("deletionTimestamp"):
        return None
    return (halt.get("spec") or {}).get("reason") or ""
