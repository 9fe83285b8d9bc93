"""Controllers that die, come back, or are two."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from squall.api.cluster import LEASE, NAMESPACE
from squall.api.fake_cluster import FakeCluster
from squall.clock import settle
from squall.controller.loop import Controller
from squall.controller.tests.scene import KINDS, NETWORK, POD_CHAOS, Scene


@pytest.fixture
async def scene():
    scene = Scene()
    await scene.node("n1")
    yield scene
    await scene.close()


async def test_node_faults_of_a_vanished_experiment_are_removed(scene):
    await scene.pod("web-0")
    task = scene.controller()
    await settle()
    await scene.apply()
    await settle()
    task.cancel()
    await settle()
    await scene.cluster.patch(NETWORK, "default", "slow", {"metadata": {"finalizers": []}})
    await scene.cluster.delete(NETWORK, "default", "slow")
    assert scene.hit
    scene.controller()
    await settle()
    assert not scene.node_faults()
    assert not scene.hit


async def test_an_experiment_made_anew_under_its_name_is_another_one(scene):
    await scene.pod("web-0")
    task = scene.controller()
    await settle()
    old = (await scene.apply())["metadata"]["uid"]
    await settle()
    task.cancel()
    await settle()
    del scene.cluster.objects[NETWORK, "default", "slow"]
    await scene.apply()
    scene.controller()
    await settle()
    assert scene.condition("AllInjected") == "True"
    assert [f["spec"]["experiment"]["uid"] != old for f in scene.node_faults()] == [True]


async def test_two_controllers_do_the_work_of_one(scene):
    await scene.pod("web-0")
    first = scene.controller("one")
    standby = Mortal(scene.cluster, 0, arrives=True)  # dies at its first write
    standby.victim = scene.controller("two", cluster=standby)
    await settle()
    await scene.apply()
    await settle()
    assert scene.hit == {"default/web-0"}
    assert not standby.died
    standby.left = -1  # may write from now on
    first.cancel()
    await scene.advance(59)
    assert holder(scene) == "two"
    await scene.delete()
    assert not scene.there()


class Blind:
    """The API of a controller that leads in a world of its own, whoever else leads."""

    def __init__(self, cluster):
        self._cluster, self._leases = cluster, FakeCluster()

    def __getattr__(self, verb):
        async def call(resource, *args, **kwargs):
            cluster = self._leases if resource in {LEASE, NAMESPACE} else self._cluster
            return await getattr(cluster, verb)(resource, *args, **kwargs)

        return call

    def watch(self, resource, *args, **kwargs):
        cluster = self._leases if resource == LEASE else self._cluster
        return cluster.watch(resource, *args, **kwargs)


async def test_two_that_both_lead_do_no_harm(scene):
    await scene.node("n2")
    await scene.pod("web-0", "n1")
    await scene.pod("web-1", "n2", "c2")
    scene.controller("one")
    scene.controller("two", cluster=Blind(scene.cluster))
    await settle()
    await scene.apply(mode="one")
    await scene.apply("kill", POD_CHAOS)
    await scene.advance(5)
    assert len(scene.hit) == 1
    assert scene.agents["n1"].strikes + scene.agents["n2"].strikes == [
        "default/web-0",
        "default/web-1",
    ]
    assert len(scene.node_faults()) == 3
    assert scene.condition("AllInjected") == "True"
    for _ in range(3):
        await scene.pause("slow")
        await scene.advance(3)
        assert not scene.hit
        await scene.pause("slow", value=None)
        await scene.advance(3)
        assert len(scene.hit) == 1
    await scene.delete()
    await scene.delete("kill", POD_CHAOS)
    await scene.advance(5)
    assert not scene.hit
    assert not scene.node_faults()
    assert not scene.there()


async def test_a_controller_that_hands_over_has_nothing_under_way_any_more(scene):
    await scene.pod("web-0")
    first = Controller(
        scene.cluster, scene.clock, KINDS,
        lease_seconds=60.0, identity="one", registry=CollectorRegistry(),
    )  # fmt: skip
    scene.tasks.append(asyncio.create_task(first.run()))
    await settle()
    scene.controller("two")
    await settle()
    await first.hand_over()
    scene.tasks[-2].cancel()
    await settle()
    assert holder(scene) == "two"
    await scene.apply()
    await settle()
    assert scene.hit == {"default/web-0"}


def holder(scene):
    return scene.cluster.objects[LEASE, "squall", "squall-controller"]["spec"]["holderIdentity"]


async def test_a_controller_that_comes_back_goes_on_at_once(scene):
    await scene.pod("web-0")
    first = scene.controller("one")
    await settle()
    first.cancel()
    await settle()
    await scene.apply()
    scene.controller("one")
    await settle()
    assert scene.hit == {"default/web-0"}
    assert (NAMESPACE, "", "squall") in scene.cluster.objects


async def test_an_api_that_fails_for_a_while_is_waited_for(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply()
    scene.cluster.down = True
    await scene.advance(5)
    assert not scene.hit
    scene.cluster.down = False
    await scene.advance(10)
    assert scene.hit == {"default/web-0"}


@pytest.mark.parametrize("arrives", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(24))
async def test_killed_at_any_write_the_next_one_finishes_the_work(scene, call, arrives):
    await scene.node("n2")
    await scene.pod("web-0", "n1")
    await scene.pod("web-1", "n2", "c2")
    mortal = Mortal(scene.cluster, call, arrives=arrives)
    mortal.victim = scene.controller(cluster=mortal)
    await settle()

    async def after(action, hit):
        await action
        await settle()
        if mortal.died:
            scene.controller()
            await settle()
            mortal.died = False
        await scene.advance(1)
        assert scene.hit == hit

    both = {"default/web-0", "default/web-1"}
    await after(scene.apply(), both)
    assert scene.condition("AllInjected") == "True"
    await after(scene.pause("slow"), set())
    await after(scene.pause("slow", value=None), both)
    await after(scene.delete(), set())
    assert not scene.there()
    assert not scene.node_faults()
    assert scene.agents["n1"].most == 1


class Mortal:
    """A cluster whose user is killed at one of its writes, before or after that arrives."""

    def __init__(self, cluster, call, *, arrives):
        self.cluster, self.left, self.arrives = cluster, call, arrives
        self.victim, self.died = None, False
        self.watch, self.get, self.list = cluster.watch, cluster.get, cluster.list

    async def create(self, *args, **kwargs):
        return await self._do(self.cluster.create, *args, **kwargs)

    async def patch(self, *args, **kwargs):
        return await self._do(self.cluster.patch, *args, **kwargs)

    async def delete(self, *args, **kwargs):
        return await self._do(self.cluster.delete, *args, **kwargs)

    async def _do(self, call, *args, **kwargs):
        self.left -= 1
        if self.left != -1:
            return await call(*args, **kwargs)
        if self.arrives:
            await call(*args, **kwargs)
        self.died = True
        self.victim.cancel()
        raise asyncio.CancelledError
