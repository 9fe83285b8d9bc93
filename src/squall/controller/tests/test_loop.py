import asyncio

import pytest

from squall.api.cluster import HALT, LEASE, NAMESPACE, NODE_FAULT, POD
from squall.clock import settle
from squall.controller.tests.scene import NETWORK, POD_CHAOS, Scene, experiment


@pytest.fixture
async def scene():
    scene = Scene()
    await scene.node("n1")
    yield scene
    await scene.close()


async def test_a_manifest_becomes_a_node_fault_and_its_evidence_becomes_status(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply()
    await settle()
    assert scene.phases() == {"default/web-0": "Injected"}
    assert [c["type"] for c in scene.status()["conditions"]] == [
        "Selected", "AllInjected", "AllRecovered", "Paused",
    ]  # fmt: skip
    assert scene.condition("AllInjected") == "True"
    assert scene.records()[0]["proof"]["verdict"] == "Confirmed"
    (fault,) = scene.node_faults()
    assert fault["spec"]["nodeName"] == "n1"
    assert fault["metadata"]["name"].startswith("networkchaos-")
    assert fault["spec"]["targets"][0]["containerId"] == "squall://c1"
    assert scene.reasons() == ["FinalizerInited", "Started", "Applied", "Confirmed"]


async def test_no_time_has_to_pass_between_manifest_and_injection(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    before = scene.clock.now()
    await scene.apply()
    await settle()
    assert scene.condition("AllInjected") == "True"
    assert scene.clock.now() == before


async def test_deleting_takes_the_fault_back_and_leaves_nothing(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply()
    await settle()
    await scene.delete()
    assert not scene.there()
    assert not scene.node_faults()
    assert not scene.hit
    assert "Recovered" in scene.reasons()


async def test_a_duration_counts_from_creation_and_ends_by_itself(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply(duration="30s")
    await settle()
    assert scene.hit
    await scene.advance(29)
    assert scene.hit
    await scene.advance(1.1)
    assert not scene.hit
    assert scene.status()["experiment"]["desiredPhase"] == "Stop"
    assert scene.condition("AllRecovered") == "True"
    assert scene.records()[0]["recoveredCount"] == 1
    assert "TimeUp" in scene.reasons()


async def test_pausing_takes_back_and_resuming_injects_again(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply()
    await settle()
    await scene.pause("slow")
    assert not scene.hit
    assert scene.condition("Paused") == "True"
    await scene.pause("slow", value=None)
    assert scene.hit == {"default/web-0"}
    record = scene.records()[0]
    assert (record["injectedCount"], record["recoveredCount"]) == (2, 1)
    assert scene.condition("Paused") == "False"


async def test_one_shot_actions_are_struck_once_and_deleted_at_once(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply("kill", POD_CHAOS, duration="1s")
    await settle()
    assert scene.agents["n1"].strikes == ["default/web-0"]
    await scene.advance(5)
    await scene.pause("kill", resource=POD_CHAOS)
    assert scene.condition("AllInjected", "kill", POD_CHAOS) == "True"
    assert scene.agents["n1"].strikes == ["default/web-0"]
    scene.agents["n1"].silent = True
    await scene.delete("kill", POD_CHAOS)
    assert not scene.there("kill", POD_CHAOS)


async def test_a_selection_that_finds_nothing_is_reported_and_repeated_when_pods_come(scene):
    scene.controller()
    await settle()
    await scene.apply()
    await settle()
    assert scene.condition("Selected") == "False"
    assert "no pod is selected" in scene.reason("Selected")
    assert scene.reasons().count("Failed") == 1
    await scene.advance(20)
    assert scene.reasons().count("Failed") == 1
    await scene.pod("web-0")
    await settle()
    assert scene.hit == {"default/web-0"}


async def test_one_stuck_node_holds_up_nobody_else(scene):
    await scene.node("n2")
    scene.agents["n2"].silent = True
    await scene.pod("web-0", "n1")
    await scene.pod("web-1", "n2", app="db")
    scene.controller()
    await settle()
    await scene.apply("stuck", selector={"labelSelectors": {"app": "db"}})
    await scene.apply("fine")
    await settle()
    assert scene.phases("fine") == {"default/web-0": "Injected"}
    assert scene.phases("stuck") == {"default/web-1": "Not Injected/Wait"}
    await scene.advance(11)
    assert "no agent answers on node n2" in scene.reason("AllInjected", "stuck")


async def test_one_stuck_write_holds_up_nobody_else(scene):
    await scene.pod("web-0")
    await scene.pod("web-1", app="db")
    patch = scene.cluster.patch

    async def hangs(resource, namespace, name, *args, **kwargs):
        if name == "stuck":
            await asyncio.Event().wait()
        return await patch(resource, namespace, name, *args, **kwargs)

    scene.cluster.patch = hangs
    scene.controller()
    await settle()
    await scene.apply("stuck", selector={"labelSelectors": {"app": "db"}})
    await scene.apply("fine")
    await settle()
    assert scene.phases("fine") == {"default/web-0": "Injected"}


async def test_deleting_never_hangs_on_a_silent_node_and_says_who_was_left(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply()
    await settle()
    scene.agents["n1"].silent = True
    await scene.delete()
    await scene.advance(69)
    assert scene.there()
    await scene.advance(2)
    assert not scene.there()
    assert not scene.node_faults()
    (said,) = [e["message"] for e in scene.events() if e["reason"] == "Failed"]
    assert "default/web-0" in said
    assert "stayed silent" in said


async def test_with_hold_the_deadline_is_waited_for(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply(duration="200s", whenCutOff="hold")
    await settle()
    scene.agents["n1"].silent = True
    await scene.advance(100)
    await scene.delete()
    await scene.advance(100)
    assert scene.there()
    await scene.advance(11)
    assert not scene.there()


async def test_forced_clean_up_frees_at_once_and_says_what_may_be_left(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    obj = experiment("slow")
    obj["metadata"]["finalizers"] = ["somebody/else"]
    await scene.cluster.create(NETWORK, obj)
    await settle()
    scene.agents["n1"].silent = True
    await scene.delete()
    assert scene.there()
    mark = {"metadata": {"annotations": {"chaos-mesh.chaos-mesh.org/cleanFinalizer": "forced"}}}
    await scene.cluster.patch(NETWORK, "default", "slow", mark)
    await settle()
    kept = scene.cluster.objects[NETWORK, "default", "slow"]["metadata"]["finalizers"]
    assert kept == ["somebody/else"]
    assert "deletion was forced" in scene.events()[-1]["message"]


async def test_a_delete_in_the_middle_of_injecting_waits_for_the_word_of_the_agent(scene):
    await scene.pod("web-0")
    scene.agents["n1"].silent = True
    scene.controller()
    await settle()
    await scene.apply()
    await settle()
    assert scene.phases() == {"default/web-0": "Not Injected/Wait"}
    await scene.delete()
    assert scene.phases() == {"default/web-0": "Injected/Wait"}
    (fault,) = scene.node_faults()
    assert fault["spec"]["desiredPhase"] == "Stop"
    scene.agents["n1"].silent = False
    await scene.agents["n1"].answer(fault)
    await settle()
    assert not scene.there()


async def test_a_halt_interrupts_for_good_and_new_experiments_are_refused(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply()
    await settle()
    await scene.cluster.create(HALT, {"metadata": {"name": "stop"}, "spec": {"reason": "outage"}})
    await settle()
    assert not scene.hit
    assert scene.status()["experiment"]["interrupted"] == "halted: outage"
    assert "halted: outage" in scene.reason("AllInjected")
    await scene.apply("late")
    await settle()
    assert scene.condition("Selected", "late") == "False"
    await scene.cluster.delete(HALT, None, "stop")
    await settle()
    await scene.advance(60)
    assert not scene.hit
    await scene.pause("slow")
    await scene.pause("slow", value=None)
    assert scene.hit == {"default/web-0"}
    assert "interrupted" not in scene.status()["experiment"]


async def test_what_an_agent_took_back_by_itself_is_not_injected_again(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply(selection="live")
    await settle()
    agent = scene.agents["n1"]
    agent.silent = True
    (fault,) = scene.node_faults()
    record = fault["status"]["targets"][0] | {"phase": "Not Injected", "final": True}
    record |= {"message": "the controller was silent", "proof": {"verdict": "Interrupted"}}
    await scene.cluster.patch(
        NODE_FAULT, "squall", fault["metadata"]["name"], {"status": {"targets": [record]}},
        subresource="status",
    )  # fmt: skip
    await settle()
    agent.silent = False
    await scene.pod("web-1", container="c2")
    await settle()
    await scene.advance(1)
    assert "controller was silent" in scene.reason("AllInjected")
    assert scene.phases() == {"default/web-0": "Not Injected", "default/web-1": "Injected"}
    assert scene.hit == {"default/web-1"}
    assert "Interrupted" in scene.reasons()
    await scene.pause("slow")
    await scene.pause("slow", value=None)
    assert scene.hit == {"default/web-0", "default/web-1"}


async def test_a_refused_target_is_a_failure_not_a_success(scene):
    await scene.pod("web-0")
    scene.agents["n1"].refuses = "no stress-ng here; install it"
    scene.controller()
    await settle()
    await scene.apply()
    await settle()
    assert scene.phases() == {"default/web-0": "Not Injected"}
    assert scene.condition("AllInjected") == "False"
    assert "no stress-ng here" in scene.reason("AllInjected")
    assert scene.reasons().count("Failed") == 1


async def test_a_live_selection_follows_restarted_containers_and_new_pods(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply(selection="live")
    await settle()
    for turn in range(10):
        change = {"status": {"containerStatuses": [
            {"name": "main", "containerID": f"squall://again{turn}", "state": {"running": {}}}
        ]}}  # fmt: skip
        await scene.cluster.patch(POD, "default", "web-0", change)
        await settle()
        assert [h[2] for h in scene.agents["n1"].hit] == [turn + 1]
    assert scene.phases() == {"default/web-0": "Injected"}
    assert scene.records()[0]["injectedCount"] == 11
    await scene.delete()
    assert not scene.hit


async def test_a_live_share_of_a_growing_set_is_never_exceeded(scene):
    for number in range(3):
        await scene.pod(f"web-{number}", container=f"c{number}")
    scene.controller()
    await settle()
    await scene.apply(selection="live", mode="fixed-percent", value="30")
    await settle()
    assert len(scene.hit) == 1
    first = scene.hit
    for number in range(3, 10):
        await scene.pod(f"web-{number}", container=f"c{number}")
        await settle()
        await scene.advance(1)
    assert len(scene.hit) == 3
    assert first <= scene.hit
    assert scene.agents["n1"].most == 3
    for number in range(3):
        await scene.cluster.delete(POD, "default", f"web-{number}")
        await settle()
    await scene.advance(1)
    assert len(scene.hit) <= 3
    assert scene.agents["n1"].most == 3


async def test_a_selection_made_once_does_not_follow(scene):
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply()
    await settle()
    await scene.pod("web-1", container="c2")
    await settle()
    assert scene.hit == {"default/web-0"}


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
    holder = scene.cluster.objects[LEASE, "squall", "squall-controller"]["spec"]["holderIdentity"]
    assert holder == "two"
    await scene.delete()
    assert not scene.there()


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
