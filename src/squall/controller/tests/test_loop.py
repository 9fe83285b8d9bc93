"""The common way of an experiment, and that none holds up another."""

import asyncio

import pytest

from squall.api.cluster import POD
from squall.clock import settle
from squall.controller.tests.scene import POD_CHAOS, Scene


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
