"""Workloads, Pods and containers together, with everything outside in memory."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from squall.api.cluster import POD, WORKLOAD
from squall.api.fake_cluster import FakeCluster
from squall.clock import FakeClock, settle
from squall.kubernetes.embedded.pods_status import HELD_DOWN, Host
from squall.kubernetes.embedded.workloads import LocalWorkloads
from squall.node.fake_sandboxes import FakeSandboxes
from squall.node.sandboxes import PodName

WEB = PodName("default", "web")


class Laptop:
    """One host; `squall up` may come and go on it."""

    def __init__(self):
        self.clock, self.cluster = FakeClock(), FakeCluster()
        self.sandboxes = FakeSandboxes(self.clock)

    @asynccontextmanager
    async def up(self):
        host = Host("laptop", ("192.0.2.1",))
        workloads = LocalWorkloads(self.cluster, self.sandboxes, host, self.clock)
        task = asyncio.create_task(workloads.run())
        await settle()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def run(self, name="web", **spec):
        spec = {"command": ["serve"], "labels": {"app": name}} | spec
        metadata = {"name": name, "namespace": "default"}
        await self.cluster.create(WORKLOAD, {"metadata": metadata, "spec": spec})
        await settle()

    async def pod(self, name="web"):
        return await self.cluster.get(POD, "default", name)

    async def container(self, name="web"):
        return (await self.pod(name))["status"]["containerStatuses"][0]


@pytest.fixture
def laptop():
    return Laptop()


async def test_a_workload_becomes_a_ready_pod(laptop):
    async with laptop.up():
        await laptop.run()
        pod = await laptop.pod()
        running = laptop.sandboxes.running(WEB)
        assert pod["metadata"]["labels"] == {"app": "web"}
        assert pod["status"]["phase"] == "Running"
        assert pod["status"]["podIPs"] == [{"ip": "10.192.0.2"}, {"ip": "fd00::2"}]
        assert (await laptop.container())["containerID"] == f"squall://{running.id}"
        workload = await laptop.cluster.get(WORKLOAD, "default", "web")
        assert workload["status"] == {"phase": "Running", "restarts": 0, "message": ""}


async def test_a_killed_container_is_restarted_at_its_address(laptop):
    async with laptop.up():
        await laptop.run()
        before = await laptop.pod()
        await laptop.sandboxes.end(laptop.sandboxes.running(WEB).id, 137)
        await settle()
        after = await laptop.pod()
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["status"]["podIP"] == before["status"]["podIP"]
        assert (await laptop.container())["restartCount"] == 1
        assert (await laptop.container())["lastState"]["terminated"]["exitCode"] == 137
        assert len(laptop.sandboxes.sandboxes) == 1


async def test_a_deleted_pod_is_made_anew_with_its_name_and_address(laptop):
    async with laptop.up():
        await laptop.run()
        before = await laptop.pod()
        await laptop.cluster.delete(POD, "default", "web")
        await settle()
        after = await laptop.pod()
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        assert after["status"]["podIP"] == before["status"]["podIP"]
        assert (await laptop.container())["restartCount"] == 0
        assert len(laptop.sandboxes.sandboxes) == 1


async def test_nothing_is_left_of_a_deleted_workload(laptop):
    async with laptop.up():
        await laptop.run()
        await laptop.run("db")
        await laptop.cluster.delete(WORKLOAD, "default", "web")
        await settle()
        assert [pod["metadata"]["name"] for pod in await laptop.cluster.list(POD)] == ["db"]
        assert list(laptop.sandboxes.networks) == [PodName("default", "db")]
        assert len(laptop.sandboxes.sandboxes) == 1


async def test_containers_are_adopted_by_whoever_comes_next(laptop):
    async with laptop.up():
        await laptop.run()
    running = laptop.sandboxes.running(WEB)
    async with laptop.up():
        assert laptop.sandboxes.running(WEB) == running
        assert [call for call, _ in laptop.sandboxes.calls].count("start") == 1
        await laptop.sandboxes.end(running.id, 1)
        await settle()
        assert (await laptop.container())["restartCount"] == 1


async def test_an_end_while_nobody_looked_is_seen_afterwards(laptop):
    async with laptop.up():
        await laptop.run()
    await laptop.sandboxes.end(laptop.sandboxes.running(WEB).id, 3)
    async with laptop.up():
        container = await laptop.container()
        assert container["restartCount"] == 1
        assert container["lastState"]["terminated"]["exitCode"] == 3


class SlowCluster(FakeCluster):
    """Lists Workloads at once, and Pods when it is let."""

    def __init__(self):
        super().__init__()
        self.ready = asyncio.Event()

    async def watch(self, resource, namespace=None, *, labels="", fields=""):
        if resource is POD:
            await self.ready.wait()
        async for event in super().watch(resource, namespace, labels=labels, fields=fields):
            yield event


async def test_nothing_is_decided_before_everything_was_listed(laptop):
    laptop.cluster = SlowCluster()
    laptop.cluster.ready.set()
    async with laptop.up():
        await laptop.run()
    laptop.sandboxes.sandboxes.clear()
    laptop.sandboxes.networks.clear()
    laptop.cluster.ready.clear()
    laptop.cluster.calls.clear()
    async with laptop.up():
        assert laptop.cluster.calls == []
        laptop.cluster.ready.set()
        await settle()
        assert (await laptop.container())["restartCount"] == 1


async def test_containers_of_a_workload_that_vanished_meanwhile_are_removed(laptop):
    async with laptop.up():
        await laptop.run()
    await laptop.cluster.delete(WORKLOAD, "default", "web")
    await laptop.cluster.delete(POD, "default", "web")
    async with laptop.up():
        assert laptop.sandboxes.sandboxes == {}
        assert laptop.sandboxes.networks == {}


async def test_a_program_that_keeps_failing_is_restarted_ever_more_slowly(laptop):
    laptop.sandboxes.missing.add("nosuch")
    async with laptop.up():
        await laptop.run(command=["nosuch"])
        starts = lambda: [call for call, _ in laptop.sandboxes.calls].count("start")  # noqa: E731
        assert starts() == 2
        assert (await laptop.container())["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        for seconds, expected in ((0.4, 2), (0.2, 3), (0.5, 3), (0.6, 4)):
            await laptop.clock.advance(seconds)
            assert starts() == expected
        workload = await laptop.cluster.get(WORKLOAD, "default", "web")
        assert workload["status"]["message"] == "nosuch: not found"


async def test_a_pod_is_not_ready_while_it_is_held_down(laptop):
    async with laptop.up():
        await laptop.run()
        for value, ready in (("true", False), (None, True)):
            patch = {"metadata": {"annotations": {HELD_DOWN: value}}}
            await laptop.cluster.patch(POD, "default", "web", patch)
            await settle()
            assert (await laptop.container())["ready"] is ready


async def test_a_name_that_is_taken_is_told_and_tried_again(laptop):
    foreign = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"nodeName": "laptop"}}
    async with laptop.up():
        await laptop.cluster.create(POD, foreign)
        await laptop.run()
        workload = await laptop.cluster.get(WORKLOAD, "default", "web")
        assert "already exists" in workload["status"]["message"]
        await laptop.cluster.delete(POD, "default", "web")
        await laptop.clock.advance(1)
        assert laptop.sandboxes.running(WEB)


class Choosy(FakeSandboxes):
    """Has a bug that shows with one environment."""

    async def start(self, order):
        if "BAD" in order.environment:
            raise ValueError("illegal environment variable name")
        return await super().start(order)


async def test_a_workload_that_meets_a_bug_says_so_and_spares_the_others(laptop):
    laptop.sandboxes = Choosy(laptop.clock)
    async with laptop.up():
        await laptop.run("bad", env={"BAD": "1"})
        await laptop.run()
        assert laptop.sandboxes.running(WEB)
        workload = await laptop.cluster.get(WORKLOAD, "default", "bad")
        assert "illegal environment" in workload["status"]["message"]


async def test_an_api_that_is_down_for_a_while_is_waited_for(laptop):
    async with laptop.up():
        await laptop.run()
        laptop.cluster.down = True
        await laptop.sandboxes.end(laptop.sandboxes.running(WEB).id, 1)
        await settle()
        laptop.cluster.down = False
        await laptop.clock.advance(1)
        assert (await laptop.container())["restartCount"] == 1
