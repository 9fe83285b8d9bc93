"""Faults by the API alone: an agent without a node, killed at every request, its journal lost."""

import asyncio
from copy import deepcopy

import pytest

from squall.api.cluster import HALT, LEASE, NODE_FAULT, POD, Unreachable
from squall.api.fake_cluster import FakeCluster
from squall.api.metadata import CONTROLLER_NODE
from squall.clock import FakeClock, settle
from squall.faults import kinds
from squall.injection.world import World
from squall.injection.world.fake import Killed
from squall.kubernetes.paused_pods import PausedPods
from squall.node.agent import Agent
from squall.node.journal import Journal

PAUSE = "pause:1"
NAMES = ("web-0", "web-1")


class Dying:
    """A way to the API on which the agent dies at its n-th request, before or after it arrived."""

    def __init__(self, cluster, at, *, arrives):
        self._cluster, self._left, self._arrives = cluster, at, arrives

    def __getattr__(self, verb):
        method = getattr(self._cluster, verb)
        if verb == "watch":
            return method

        async def asked(*given, **named):
            last = self._left == 0
            self._left -= 1
            if last and not self._arrives:
                raise Killed
            answer = await method(*given, **named)
            if last:
                raise Killed
            return answer

        return asked


class Scene:
    """An API with two pods, and an agent of the controller's node."""

    def __init__(self, folder):
        self.folder, self.clock, self.cluster = folder, FakeClock(), FakeCluster()
        self.task, self.journal, self.lives = None, None, 0

    async def set_up(self):
        meta = {"name": "squall-controller", "namespace": "squall"}
        await self.cluster.create(LEASE, {"metadata": meta, "spec": {"renewTime": "1"}})
        for name in NAMES:
            await self.pod(name)

    async def pod(self, name):
        containers = [{"name": "app", "image": "app:1"}, {"name": "log", "image": "log:1"}]
        meta = {"name": name, "namespace": "default", "labels": {"app": "web"},
                "annotations": {"team": "red"}}  # fmt: skip
        pod = {"metadata": meta, "spec": {"nodeName": "n1", "containers": containers}}
        return await self.cluster.create(POD, pod)

    async def start(self, at=10**6, *, arrives=True):
        """Start an agent that knows nothing: its journal is a new one."""
        self.lives += 1
        self.journal = Journal(self.folder / f"{self.lives}.db", "boot")
        cluster = Dying(self.cluster, at, arrives=arrives)
        agent = Agent(
            cluster, self.clock, kinds(), World(self.clock, None, None,
            PausedPods(cluster, PAUSE), None), None, self.journal,
            node_name=CONTROLLER_NODE, lease_seconds=1000.0,
        )  # fmt: skip
        self.task = asyncio.create_task(agent.run())
        await settle(100)

    async def end(self):
        """End the agent, if it lives; True when it had died by itself."""
        died = self.task.done()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.journal.close()
        return died

    async def revived(self):
        """Start another agent where the one before died; say whether it did."""
        if not self.task.done():
            return False
        await self.end()
        await self.start()
        return True

    async def order(self, **more):
        pods = [self.cluster.objects[POD, "default", name] for name in NAMES]
        spec = {
            "nodeName": CONTROLLER_NODE,
            "experiment": {"kind": "PodChaos", "namespace": "default", "name": "x", "uid": "x-1",
                           "created": self.clock.now().isoformat()},
            "desiredPhase": "Run",
            "faults": {".": {"action": "pod-failure"}},
            "targets": [{"id": f"default/{p['metadata']['name']}", "selectorKey": ".",
                         "podUid": p["metadata"]["uid"]} for p in pods],
        } | more  # fmt: skip
        await self.cluster.create(
            NODE_FAULT, {"metadata": {"name": "x", "namespace": "squall"}, "spec": spec}
        )
        await settle(100)

    async def change(self, **spec):
        await self.cluster.patch(NODE_FAULT, "squall", "x", {"spec": spec})
        await settle(100)

    @property
    def spec(self):
        return self.cluster.objects[NODE_FAULT, "squall", "x"]["spec"]

    @property
    def status(self):
        return self.cluster.objects[NODE_FAULT, "squall", "x"].get("status") or {"targets": []}

    def phases(self):
        return [record["phase"] for record in self.status["targets"]]

    def images(self):
        return {
            container["image"]
            for (kind, _, _), pod in self.cluster.objects.items()
            if kind == POD
            for container in pod["spec"]["containers"]
        }

    def pods(self):
        found = {}
        for (kind, _, name), pod in self.cluster.objects.items():
            if kind == POD:
                found[name] = deepcopy(pod)
                del (
                    found[name]["metadata"]["resourceVersion"],
                    found[name]["metadata"]["generation"],
                )
        return found


@pytest.fixture
async def scenes(tmp_path):
    made: list[Scene] = []

    async def scene():
        folder = tmp_path / str(len(made))
        made.append(Scene(folder))
        await made[-1].set_up()
        return made[-1]

    yield scene
    for one in made:
        if one.task is not None:
            await one.end()


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_failure_survives_a_death_at_any_request(scenes, arrives):
    for at in range(100):
        scene = await scenes()
        before = scene.pods()
        await scene.start(at, arrives=arrives)
        died = await scene.revived()
        await scene.order()
        died = await scene.revived() or died
        assert scene.images() == {PAUSE}, f"injected after death {at}"
        assert scene.phases() == ["Injected"] * 2
        await scene.clock.advance(5)
        died = await scene.revived() or died
        await scene.change(desiredPhase="Stop")
        died = await scene.revived() or died
        assert scene.pods() == before, f"restored after death {at}"
        assert scene.phases() == ["Not Injected"] * 2
        assert scene.status["observedGeneration"] == 2
        await scene.end()
        if not died:
            assert at > 10
            return
    raise AssertionError("it never comes to rest")


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_stop_while_nobody_acts_is_carried_out_by_whoever_comes(scenes, arrives):
    for at in range(100):
        scene = await scenes()
        before = scene.pods()
        await scene.start(at, arrives=arrives)
        await scene.order()
        died = await scene.end()
        await scene.change(desiredPhase="Stop")
        await scene.start()
        assert scene.pods() == before, f"restored after death {at}"
        assert scene.phases() == ["Not Injected"] * 2
        await scene.end()
        if not died:
            return
    raise AssertionError("it never comes to rest")


async def test_what_no_node_fault_names_any_more_is_taken_back(scenes):
    scene = await scenes()
    before = scene.pods()
    await scene.start()
    await scene.order()
    await scene.end()
    await scene.change(targets=scene.spec["targets"][:1])
    await scene.start()
    after = scene.pods()
    assert after["web-0"] != before["web-0"]
    assert after["web-1"] == before["web-1"]
    await scene.end()
    await scene.cluster.delete(NODE_FAULT, "squall", "x")
    await scene.start()
    assert scene.pods() == before


async def test_a_halt_while_nobody_acts_takes_everything_back_and_it_stays_so(scenes):
    scene = await scenes()
    before = scene.pods()
    await scene.start()
    await scene.order()
    await scene.end()
    await scene.cluster.create(HALT, {"metadata": {"name": "now"}, "spec": {"reason": "no"}})
    await scene.start()
    assert scene.pods() == before
    await scene.end()
    await scene.cluster.delete(HALT, None, "now")
    await scene.start()
    assert scene.pods() == before
    assert [r["proof"]["verdict"] for r in scene.status["targets"]] == ["Interrupted"] * 2


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_kill_survives_a_death_at_any_request(scenes, arrives):
    for at in range(100):
        scene = await scenes()
        await scene.start(at, arrives=arrives)
        died = await scene.revived()
        await scene.order(oneShot=True, faults={".": {"action": "pod-kill"}})
        died = await scene.revived() or died
        assert scene.pods() == {}
        later = await scene.pod("web-0")
        for _ in range(6):
            await scene.clock.advance(1)
            await settle(50)
            died = await scene.revived() or died
        assert [(r["phase"], r["final"]) for r in scene.status["targets"]] == [
            ("Injected", True)
        ] * 2, f"after death {at}"
        assert scene.pods()["web-0"]["metadata"]["uid"] == later["metadata"]["uid"]
        await scene.end()
        if not died:
            return
    raise AssertionError("it never comes to rest")


async def test_a_kill_without_an_answer_is_tried_again(scenes):
    scene = await scenes()
    away = [True]

    def answer(verb, _resource, _name):
        if verb == "delete" and away:
            raise Unreachable(0, "Unreachable", "nobody answers")

    scene.cluster.on_call = answer
    await scene.start()
    await scene.order(oneShot=True, faults={".": {"action": "pod-kill"}})
    assert [r["final"] for r in scene.status["targets"]] == [False] * 2
    away.clear()
    await scene.clock.advance(1)
    await settle(50)
    assert scene.pods() == {}
    assert scene.phases() == ["Injected"] * 2


async def test_a_pod_that_is_gone_is_left_and_its_successor_not_touched(scenes):
    scene = await scenes()
    await scene.start()
    await scene.order()
    await scene.cluster.delete(POD, "default", "web-0")
    later = await scene.pod("web-0")
    for _ in range(10):
        await scene.clock.advance(1)
        await settle(50)
    record = scene.status["targets"][0]
    assert (record["phase"], record["final"]) == ("Not Injected", True)
    assert scene.pods()["web-0"]["spec"] == later["spec"]


async def test_a_failure_costs_one_write_for_each_pod(scenes):
    scene = await scenes()
    await scene.start()
    scene.cluster.calls.clear()
    await scene.order()
    writes = sorted(call for call in scene.cluster.calls if call[:2] == ("patch", "Pod"))
    assert writes == [("patch", "Pod", name) for name in NAMES]
