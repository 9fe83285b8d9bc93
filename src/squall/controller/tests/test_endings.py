"""How experiments end: deletes, silent nodes, force, halts, interruptions."""

import pytest

from squall.api.cluster import HALT, NODE_FAULT
from squall.clock import settle
from squall.controller.tests.scene import NETWORK, Scene, experiment


@pytest.fixture
async def scene():
    scene = Scene()
    await scene.node("n1")
    yield scene
    await scene.close()


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
