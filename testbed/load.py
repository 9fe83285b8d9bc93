"""Experiments put on an API server whose nodes are simulated, and how long they take."""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager

from squall.api.cluster import NODE_FAULT, Change, NotFound, Object, Resource
from squall.faults import kinds
from squall.kubernetes.client import HttpCluster
from testbed.apiserver import ApiServer
from testbed.audit import Audit, Request, for_experiments
from testbed.simulated_nodes import AGENTS, CONTROLLER, INSTALLED_IN

GIVEN_UP_AFTER_SECONDS = 240.0

QUIET_SECONDS = 2.5
"""So long nothing must be asked before an experiment counts as over."""

NAMESPACE = "load"


def delay(name: str, labels: dict[str, str], *, most: int = 0) -> Object:
    """Write a delay of all pods with these labels, or of so many of them."""
    mode = {"mode": "fixed", "value": str(most)} if most else {"mode": "all"}
    body = {"action": "delay", "delay": {"latency": "10ms"}, **mode}
    return _experiment("NetworkChaos", NAMESPACE, name, {**body, **_selected(labels)})


def stress(name: str, labels: dict[str, str]) -> Object:
    """Write a load on all pods with these labels."""
    body = {"mode": "all", "stressors": {"cpu": {"workers": 1, "load": 10}}}
    return _experiment("StressChaos", NAMESPACE, name, {**body, **_selected(labels)})


def partition(name: str, namespace: str) -> Object:
    """Write a partition between pod 0 of a namespace and all its others."""
    one = {"pods": {namespace: ["web-6b7f6db9c-00000"]}}
    others = {
        "namespaces": [namespace],
        "expressionSelectors": [{"key": "part", "operator": "NotIn", "values": ["0"]}],
    }
    spec = {
        "action": "partition",
        "mode": "all",
        "selector": others,
        "direction": "both",
        "target": {"mode": "all", "selector": one},
    }
    return _experiment("NetworkChaos", namespace, name, spec)


class Load:
    """Puts experiments on and takes them off."""

    def __init__(self, server: ApiServer, cluster: HttpCluster) -> None:
        self._server, self._cluster = server, cluster
        self.audit = Audit(server.folder / "audit.log")

    async def ready(self, nodes: int) -> None:
        """Wait until every agent and one controller watch."""
        wanted = {(AGENTS, "nodefaults"): nodes, (CONTROLLER, "pods"): 1}
        audit = Audit(self._server.folder / "audit.log")
        audit.rewind()
        seen: list[Request] = []
        async with asyncio.timeout(GIVEN_UP_AFTER_SECONDS):
            while True:
                seen += [request for request in audit.read() if request.verb == "watch"]
                if all(_count(seen, *who) >= count for who, count in wanted.items()):
                    break
                await asyncio.sleep(0.1)
            await self.settled()

    async def settled(self) -> list[Request]:
        """Wait until nothing is asked any more; returns what experiments have cost since."""
        asked: list[Request] = []
        async with asyncio.timeout(GIVEN_UP_AFTER_SECONDS):
            while True:
                await asyncio.sleep(QUIET_SECONDS)
                new = for_experiments(self.audit.read(), (CONTROLLER, AGENTS))
                asked += new
                if not new:
                    return asked

    async def inject(self, manifest: Object) -> tuple[float, Object]:
        """Create an experiment; returns seconds until all is injected, and the object then."""
        async with self._following([manifest], injected) as done:
            began = time.monotonic()
            await self._create(manifest)
            obj = (await done())[0]
            return time.monotonic() - began, obj

    async def delete(self, manifest: Object) -> float:
        """Delete an experiment; returns seconds until it is gone."""
        return await self.delete_all([manifest])

    async def inject_all(self, manifests: list[Object]) -> float:
        """Create experiments at once; returns seconds until all are injected."""
        async with self._following(manifests, injected) as done:
            began = time.monotonic()
            await asyncio.gather(*(self._create(manifest) for manifest in manifests))
            await done()
            return time.monotonic() - began

    async def delete_all(self, manifests: list[Object]) -> float:
        """Delete experiments at once; returns seconds until all are gone."""
        async with self._following(manifests, None) as done:
            began = time.monotonic()
            await asyncio.gather(*(self._delete(manifest) for manifest in manifests))
            await done()
            return time.monotonic() - began

    async def apply(self, manifest: Object) -> float:
        """Let kubectl create an experiment; seconds from its call until all is injected."""
        async with self._following([manifest], injected) as done:
            began = time.monotonic()
            await self._kubectl("apply", "-f", "-", given=json.dumps(manifest))
            await done()
            return time.monotonic() - began

    async def kubectl_delete(self, manifest: Object) -> float:
        """Let kubectl delete an experiment; seconds from its call until it is gone."""
        async with self._following([manifest], None) as done:
            began = time.monotonic()
            given = json.dumps(manifest)
            await self._kubectl("delete", "--wait=false", "-f", "-", given=given)
            await done()
            return time.monotonic() - began

    async def survive(
        self, manifest: Object, leader: subprocess.Popen[bytes], targets: int
    ) -> float:
        """Create an experiment, kill the leader in the middle; seconds until all is injected."""
        async with self._following([manifest], injected) as done:
            began = time.monotonic()
            await self._create(manifest)
            async with asyncio.timeout(GIVEN_UP_AFTER_SECONDS):
                while not 0 < await self._assigned() < targets:  # noqa: ASYNC110  (asks)
                    await asyncio.sleep(0.01)
            leader.kill()
            await done()
            return time.monotonic() - began

    async def node_faults(self) -> list[Object]:
        """List what agents are told."""
        return await self._cluster.list(NODE_FAULT, INSTALLED_IN)

    async def _assigned(self) -> int:
        return sum(len(one["spec"]["targets"]) for one in await self.node_faults())

    async def _create(self, manifest: Object) -> None:
        await self._cluster.create(_resource(manifest), manifest)

    async def _delete(self, manifest: Object) -> None:
        meta = manifest["metadata"]
        try:
            await self._cluster.delete(_resource(manifest), meta["namespace"], meta["name"])
        except NotFound:
            return

    async def _kubectl(self, *arguments: str, given: str) -> None:
        kubectl = str(self._server.kubectl)
        process = await asyncio.create_subprocess_exec(
            kubectl,
            f"--kubeconfig={self._server.kubeconfig}",
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        await process.communicate(given.encode())
        if process.returncode:
            raise RuntimeError(f"kubectl {arguments[0]} failed")

    @asynccontextmanager
    async def _following(
        self, manifests: Iterable[Object], reached: Callable[[Object], bool] | None
    ) -> AsyncIterator[Callable[[], asyncio.Future[list[Object]]]]:
        """Watch experiments; what is given waits for all to get there, or with None to be gone."""
        wanted = {_name(manifest): _resource(manifest) for manifest in manifests}
        (resource,) = set(wanted.values())
        (namespace,) = {namespace for namespace, _ in wanted}
        found: dict[tuple[str, str], Object] = {}
        watching = asyncio.Event()

        async def follow() -> list[Object]:
            async with aclosing(self._cluster.watch(resource, namespace)) as events:
                async for event in events:
                    if event.change is Change.SYNCED:
                        watching.set()
                        continue
                    there = event.change is not Change.DELETED
                    if (
                        reached(event.object)
                        if reached and there
                        else reached is None and not there
                    ):
                        found[_name(event.object)] = event.object
                    if wanted.keys() <= found.keys():
                        break
            return [found[name] for name in wanted]

        task = asyncio.create_task(follow())
        try:
            await watching.wait()
            yield lambda: asyncio.ensure_future(asyncio.wait_for(task, GIVEN_UP_AFTER_SECONDS))
        finally:
            task.cancel()


def injected(obj: Object) -> bool:
    """Does an experiment say that every target has the fault?"""
    conditions = obj.get("status", {}).get("conditions") or ()
    return any(c["type"] == "AllInjected" and c["status"] == "True" for c in conditions)


def _count(requests: Iterable[Request], user: str, resource: str) -> int:
    return sum(one.user == user and one.resource == resource for one in requests)


def _experiment(kind: str, namespace: str, name: str, spec: Object) -> Object:
    return {
        "apiVersion": kinds()[kind].resource.api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def _selected(labels: dict[str, str]) -> Object:
    return {"selector": {"namespaces": [NAMESPACE], "labelSelectors": labels}}


def _resource(manifest: Object) -> Resource:
    return kinds()[manifest["kind"]].resource


def _name(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
