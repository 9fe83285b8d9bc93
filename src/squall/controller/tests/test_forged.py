"""What somebody else wrote where only Squall should write."""

import json

import pytest

from squall.api.cluster import HALT, NODE_FAULT, POD
from squall.api.metadata import RECORDS_FINALIZER
from squall.clock import settle
from squall.controller.tests.scene import NETWORK, Scene, pod, until

FORGED = {"selectorKey": ".", "phase": "Not Injected", "injectedCount": 0, "recoveredCount": 0}


@pytest.fixture
async def scene():
    scene = Scene()
    await scene.node("n1")
    await scene.pod("web-1")
    other = pod("bank", container="c2")
    other["metadata"]["namespace"] = "foreign"
    await scene.cluster.create(POD, other)
    yield scene
    await scene.close()


async def forge(scene: Scene, **status: object) -> None:
    held = {"metadata": {"finalizers": [RECORDS_FINALIZER]}}
    await scene.cluster.patch(NETWORK, "default", "slow", held)
    await scene.cluster.patch(NETWORK, "default", "slow", {"status": status}, subresource="status")
    await settle()


@pytest.mark.parametrize("key", [".", ".Target", "made up"])
@pytest.mark.parametrize("phase", ["Not Injected", "Injected", "Injected/Wait"])
async def test_a_record_that_no_selector_can_have_chosen_hits_nothing(scene, key, phase):
    await scene.apply()
    records = [FORGED | {"id": "foreign/bank", "selectorKey": key, "phase": phase}]
    await forge(scene, experiment={"desiredPhase": "Run", "containerRecords": records})
    scene.controller()
    await settle()
    await scene.advance(30)
    assert scene.status()["conditions"]
    assert scene.hit == set()
    assert scene.node_faults() == []
    await scene.delete()
    await until(scene, lambda: not scene.there())


@pytest.mark.parametrize(
    "status",
    [
        {"experiment": {"containerRecords": [FORGED | {"id": "default/web-1", "phase": "odd"}]}},
        {"experiment": {"containerRecords": [FORGED | {"id": ""}]}},
        {"experiment": {"containerRecords": [{"id": "default/web-1"}]}},
        {"experiment": {"desiredPhase": "Perhaps"}},
        {"conditions": [{"type": "Sunny", "status": "True"}]},
    ],
)
async def test_a_status_that_makes_no_sense_keeps_nobody_from_deleting(scene, status):
    await scene.apply()
    await forge(scene, **status)
    scene.controller()
    await settle()
    await scene.delete()
    await until(scene, lambda: not scene.there(), 30)
    assert scene.hit == set()


async def test_a_node_fault_that_nobody_can_read_holds_up_no_other(scene):
    metadata = {"name": "odd", "namespace": "squall"}
    await scene.cluster.create(NODE_FAULT, {"metadata": metadata, "spec": {"nodeName": "n2"}})
    scene.controller()
    await settle()
    await scene.apply()
    await until(scene, lambda: scene.hit == {"default/web-1"})
    await scene.delete()
    await until(scene, lambda: not scene.there())


async def test_an_experiment_that_runs_outlives_a_status_that_makes_no_sense(scene):
    scene.controller()
    await settle()
    await scene.apply()
    await until(scene, lambda: scene.hit == {"default/web-1"})
    await forge(scene, conditions=[{"type": "Sunny", "status": "True"}])
    await until(scene, lambda: scene.phases() == {"default/web-1": "Injected"})
    await scene.delete()
    await until(scene, lambda: not scene.there())
    assert scene.hit == set()


async def test_whatever_an_agent_says_the_experiment_can_still_be_written(scene):
    scene.agents["n1"].refuses = "x" * 1_000_000
    scene.agents["n1"].verdict = "y" * 1_000_000
    scene.controller()
    await settle()
    await scene.apply()
    await until(scene, lambda: "xxx" in json.dumps(scene.status()))
    assert len(json.dumps(scene.status())) < 10_000
    scene.agents["n1"].refuses = ""
    [fault] = scene.node_faults()
    await scene.agents["n1"].answer(fault)
    await until(scene, lambda: scene.phases() == {"default/web-1": "Injected"})
    assert len(json.dumps(scene.status())) < 10_000


async def test_a_halt_that_somebody_lifted_is_lifted_whatever_holds_its_object(scene):
    metadata = {"name": "stop", "finalizers": ["example.com/mine"]}
    await scene.cluster.create(HALT, {"metadata": metadata, "spec": {"reason": "outage"}})
    scene.controller()
    await settle()
    await scene.cluster.delete(HALT, None, "stop")
    assert [kind for kind, _, _ in scene.cluster.objects if kind == HALT]
    await scene.apply()
    await until(scene, lambda: scene.hit == {"default/web-1"})
