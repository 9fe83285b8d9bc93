"""What one experiment asks of the API: it must not grow with the number of its targets."""

from collections import Counter

import pytest

from squall.clock import settle
from squall.controller.tests.scene import NETWORK, Scene, until
from squall.orchestration.experiments.records import MOST_DETAILED


@pytest.fixture
async def scene():
    scene = Scene()
    for node in ("n1", "n2"):
        await scene.node(node)
    yield scene
    await scene.close()


class Counted:
    """Passes everything on, and counts writes by what is written."""

    def __init__(self, cluster):
        self._cluster = cluster
        self.writes: Counter[str] = Counter()
        self.order: list[str] = []

    def __getattr__(self, name):
        return getattr(self._cluster, name)

    async def create(self, resource, obj):
        self._count(f"create {resource.plural}")
        return await self._cluster.create(resource, obj)

    async def patch(self, resource, *where, subresource=""):
        self._count(f"patch {resource.plural}{subresource and '/' + subresource}")
        return await self._cluster.patch(resource, *where, subresource=subresource)

    async def delete(self, resource, *where, **how):
        self._count(f"delete {resource.plural}")
        return await self._cluster.delete(resource, *where, **how)

    def _count(self, what):
        self.writes[what] += 1
        self.order.append(what)


async def begun(scene, pods):
    for number in range(pods):
        await scene.pod(f"web-{number}", f"n{1 + number % 2}", f"c{number}")
    counted = Counted(scene.cluster)
    scene.controller(cluster=counted)
    await settle()
    counted.writes.clear()
    counted.order.clear()
    return counted


@pytest.mark.parametrize("pods", [2, 40])
async def test_forty_targets_cost_what_two_cost(scene, pods):
    counted = await begun(scene, pods)
    await scene.apply()
    await until(scene, lambda: "Confirmed" in scene.reasons())
    await scene.delete()
    await until(scene, lambda: not scene.there() and not scene.node_faults())
    statuses = counted.writes.pop("patch networkchaos/status")
    events = counted.writes.pop("create events")
    assert counted.writes == {
        "patch networkchaos": 2,
        "create nodefaults": 2,
        "patch nodefaults": 2,
        "delete nodefaults": 2,
    }
    assert statuses <= 4
    assert events <= 8


async def test_an_object_that_vanishes_goes_before_its_node_faults_and_without_a_last_status(scene):
    counted = await begun(scene, 1)
    await scene.apply()
    await settle()
    counted.order.clear()
    await scene.delete()
    what = [one for one in counted.order if "events" not in one]
    assert what[-2:] == ["patch networkchaos", "delete nodefaults"]
    assert what.count("patch networkchaos/status") == 1  # that it shall stop
    assert not scene.node_faults()


async def test_an_object_that_others_hold_gets_its_last_status(scene):
    await begun(scene, 1)
    await scene.apply()
    await settle()
    held = {"metadata": {"finalizers": ["example.org/keep", "chaos-mesh/records"]}}
    await scene.cluster.patch(NETWORK, "default", "slow", held)
    await scene.delete()
    assert scene.there()
    assert scene.condition("AllRecovered") == "True"
    assert not scene.node_faults()


async def test_a_large_experiment_is_decided_on_once_a_second(scene):
    counted = await begun(scene, 0)
    many = MOST_DETAILED + 2
    for number in range(many):
        await scene.pod(f"web-{number}", f"n{1 + number % 2}", f"c{number}")
    for agent in scene.agents.values():
        agent.silent = True
    await scene.apply()
    await settle()
    counted.writes.clear()
    for fault in scene.node_faults():
        await scene.agents[fault["spec"]["nodeName"]].answer(fault)
        await settle()
    assert counted.writes["patch networkchaos/status"] == 0
    await until(scene, lambda: scene.condition("AllInjected") == "True", seconds=2)
    assert counted.writes["patch networkchaos/status"] == 1
    (said,) = [event for event in scene.events() if event["reason"] == "Applied"]
    assert said["message"].startswith(f"Successfully apply chaos for {many} targets: ")


async def test_node_faults_of_an_experiment_without_our_finalizer_are_removed(scene):
    """Somebody took it away, or we did and died before removing them."""
    await begun(scene, 1)
    await scene.apply()
    await settle()
    for agent in scene.agents.values():
        agent.silent = True
    held = {"metadata": {"finalizers": ["example.org/keep", "chaos-mesh/records"]}}
    await scene.cluster.patch(NETWORK, "default", "slow", held)
    await scene.delete()
    assert scene.node_faults()
    held = {"metadata": {"finalizers": ["example.org/keep"]}}
    await scene.cluster.patch(NETWORK, "default", "slow", held)
    await settle()
    assert scene.there()
    assert not scene.node_faults()
