"""A controller on a fake API with agents that answer, for tests."""

import asyncio
import json
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from squall.api.cluster import EVENT, LEASE, NODE, NODE_FAULT, POD, Change, Object, Resource
from squall.api.fake_cluster import FakeCluster
from squall.api.metadata import ABILITIES, AGENT_COMPONENT, COMPONENT
from squall.api.names import agent_lease_name
from squall.clock import FakeClock, settle
from squall.controller.loop import Controller
from squall.faults import kinds

KINDS = kinds()
NETWORK = KINDS["NetworkChaos"].resource
POD_CHAOS = KINDS["PodChaos"].resource
LEASE_SECONDS = 60.0
NEEDS = sorted({need for kind in KINDS.values() for need in kind.needs})


class FakeAgent:
    """Does at once what NodeFaults of its node ask for, and reports it."""

    def __init__(self, cluster: FakeCluster, node: str) -> None:
        self.cluster, self.node = cluster, node
        self.hit: set[tuple[str, str, int]] = set()
        """(NodeFault, record id, incarnation) of every target that has the fault now."""
        self.silent = False
        self.refuses: str = ""
        self.verdict = "Confirmed"
        self.most = 0
        """Most targets that were hit at the same time."""
        self.strikes: list[str] = []

    async def run(self):
        async for event in self.cluster.watch(
            NODE_FAULT, "squall", fields=f"spec.nodeName={self.node}"
        ):
            if event.change is Change.SYNCED or self.silent:
                continue
            if event.change is Change.DELETED:
                name = event.object["metadata"]["name"]
                self.hit = {h for h in self.hit if h[0] != name}
            else:
                await self.answer(event.object)

    async def answer(self, obj: Object):
        name, spec = obj["metadata"]["name"], obj["spec"]
        old = {(r["id"], r["incarnation"]): r for r in obj.get("status", {}).get("targets", [])}
        runs = spec["desiredPhase"] == "Run" and not self.refuses
        self.hit = {h for h in self.hit if h[0] != name}
        records = []
        for target in spec["targets"]:
            known = old.get((target["id"], target["incarnation"]))
            if spec["oneShot"] and runs and not known:
                self.strikes.append(target["id"])
            if runs and not spec["oneShot"]:
                self.hit.add((name, target["id"], target["incarnation"]))
            records.append(self._record(target, runs, known))
        self.most = max(self.most, len(self.hit))
        status = {"observedGeneration": obj["metadata"]["generation"], "targets": records}
        if status != obj.get("status"):
            await self.cluster.patch(
                NODE_FAULT, "squall", name, {"status": status}, subresource="status"
            )

    def _record(self, target, runs, known):
        record = {
            "id": target["id"],
            "selectorKey": target["selectorKey"],
            "incarnation": target["incarnation"],
            "phase": "Injected" if runs else "Not Injected",
            "message": self.refuses,
            "final": bool(self.refuses),
        }
        if runs:
            record["proof"] = {
                "verdict": self.verdict,
                "asked": "delay 100 ms",
                "measured": "100.2 ms",
                "during": {"rtt_ms": 100.2},
            }
        elif known and "proof" in known:
            record["proof"] = known["proof"]
        return record


class Scene:
    """One API, one clock, some nodes with pods, any number of controllers."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = FakeCluster(self.clock.now())
        self.agents: dict[str, FakeAgent] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def node(self, name: str, agent: bool = True) -> None:
        await self.cluster.create(NODE, {"metadata": {"name": name}})
        if agent:
            self.agents[name] = FakeAgent(self.cluster, name)
            self.tasks.append(asyncio.create_task(self.agents[name].run()))
            await self.tell(name)

    async def tell(self, node: str, **lacking: str) -> None:
        """Renew the Lease of an agent; `shape="why"` says that its node has no network:shape."""
        missing = {need: f"missing: {lacking[need.partition(':')[2]]}"
                   for need in NEEDS if need.partition(":")[2] in lacking}  # fmt: skip
        told = json.dumps(dict.fromkeys(NEEDS, "ok") | missing)
        name = agent_lease_name(node)
        lease = {
            "metadata": {
                "name": name, "namespace": "squall", "labels": {COMPONENT: AGENT_COMPONENT},
                "annotations": {ABILITIES: told},
            },
            "spec": {
                "holderIdentity": node, "leaseDurationSeconds": 180,
                "renewTime": self.clock.now().isoformat(),
            },
        }  # fmt: skip
        if (LEASE, "squall", name) in self.cluster.objects:
            await self.cluster.patch(LEASE, "squall", name, lease)
        else:
            await self.cluster.create(LEASE, lease)

    async def pod(
        self, name: str, node: str = "n1", container: str = "c1", **labels: str
    ) -> Object:
        return await self.cluster.create(POD, pod(name, node, container, **labels))

    def controller(self, identity: str = "one", *, cluster=None, **settings) -> asyncio.Task[None]:
        controller = Controller(
            cluster or self.cluster, self.clock, KINDS,
            lease_seconds=LEASE_SECONDS, identity=identity, registry=CollectorRegistry(),
            **settings,
        )  # fmt: skip
        task = asyncio.create_task(controller.run())
        self.tasks.append(task)
        return task

    async def apply(self, name: str = "slow", resource: Resource = NETWORK, **spec) -> Object:
        return await self.cluster.create(resource, experiment(name, resource, **spec))

    async def pause(self, name: str, *, value: str | None = "true", resource: Resource = NETWORK):
        change = {"metadata": {"annotations": {"experiment.chaos-mesh.org/pause": value}}}
        await self.cluster.patch(resource, "default", name, change)
        await settle()

    async def delete(self, name: str = "slow", resource: Resource = NETWORK) -> None:
        self.cluster.now = self.clock.now()
        await self.cluster.delete(resource, "default", name)
        await settle()

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        self.cluster.now = self.clock.now()

    def status(self, name: str = "slow", resource: Resource = NETWORK):
        return self.cluster.objects[resource, "default", name].get("status", {})

    def records(self, name: str = "slow", resource: Resource = NETWORK):
        return self.status(name, resource)["experiment"].get("containerRecords", [])

    def phases(self, name: str = "slow", resource: Resource = NETWORK) -> dict[str, str]:
        return {r["id"]: r["phase"] for r in self.records(name, resource)}

    def condition(self, kind: str, name: str = "slow", resource: Resource = NETWORK):
        return {c["type"]: c["status"] for c in self.status(name, resource)["conditions"]}[kind]

    def reason(self, kind: str, name: str = "slow"):
        return {c["type"]: c.get("reason") for c in self.status(name)["conditions"]}[kind]

    def there(self, name: str = "slow", resource: Resource = NETWORK) -> bool:
        return (resource, "default", name) in self.cluster.objects

    def node_faults(self) -> list[Object]:
        return [o for (kind, _, _), o in self.cluster.objects.items() if kind == NODE_FAULT]

    def events(self) -> list[Object]:
        return [o for (kind, _, _), o in self.cluster.objects.items() if kind == EVENT]

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.events()]

    @property
    def hit(self) -> set[str]:
        return {h[1] for agent in self.agents.values() for h in agent.hit}

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def pod(name: str, node: str = "n1", container: str = "c1", **labels: str) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default", "labels": labels or {"app": "web"}},
        "spec": {"nodeName": node, "containers": [{"name": "main"}]},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "containerStatuses": [
                {"name": "main", "containerID": f"squall://{container}", "state": {"running": {}}}
            ],
        },
    }


def experiment(name: str, resource: Resource = NETWORK, **spec) -> Object:
    actions = {
        NETWORK: {"action": "delay", "delay": {"latency": "100ms"}},
        POD_CHAOS: {"action": "pod-kill"},
    }
    wanted = {"mode": "all", "selector": {"labelSelectors": {"app": "web"}}}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": actions.get(resource, {}) | wanted | spec,
    }


async def until(scene: Scene, holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Let time pass, in small steps, until something holds."""
    for _ in range(int(seconds * 10)):
        if holds():
            return
        await scene.advance(0.1)
    assert holds()
