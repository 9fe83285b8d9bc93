"""What a controller does in a cluster: faults by the API alone, within what is allowed."""

import asyncio

import pytest

from squall.api.cluster import NAMESPACE, POD
from squall.api.metadata import CONTROLLER_NODE, INJECT, INJECT_ENABLED
from squall.api.policy import Policy
from squall.clock import settle
from squall.controller.preview import preview
from squall.controller.tests.scene import KINDS, POD_CHAOS, FakeAgent, Scene, experiment, pod


@pytest.fixture
async def scene():
    scene = Scene()
    for node in ("n1", "n2"):
        await scene.node(node)
        for number in range(2):
            await scene.pod(f"web-{node}-{number}", node, f"c-{node}-{number}")
    agent = scene.agents[CONTROLLER_NODE] = FakeAgent(scene.cluster, CONTROLLER_NODE)
    scene.tasks.append(asyncio.create_task(agent.run()))
    yield scene
    await scene.close()


def nodes(scene):
    return sorted(fault["spec"]["nodeName"] for fault in scene.node_faults())


async def begun(scene, resource=POD_CHAOS, settings=None, **spec):
    scene.controller(**({"api_node": CONTROLLER_NODE} | (settings or {})))
    await settle()
    await scene.apply("x", resource, **spec)
    await settle()


@pytest.mark.parametrize("action", ["pod-kill", "pod-failure"])
async def test_what_needs_no_node_is_one_order_for_the_controller_itself(scene, action):
    await begun(scene, action=action)
    assert nodes(scene) == [CONTROLLER_NODE]
    targets = scene.node_faults()[0]["spec"]["targets"]
    assert len(targets) == 4
    assert all(target["containerId"] == "" for target in targets)
    assert set(scene.phases("x", POD_CHAOS).values()) == {"Injected"}


@pytest.mark.parametrize(
    ("settings", "action"),
    [({}, "container-kill"), ({"api_node": ""}, "pod-kill"), ({"api_node": ""}, "pod-failure")],
)
async def test_everything_else_goes_to_the_nodes_of_the_pods(scene, settings, action):
    await begun(scene, settings=settings, action=action, containerNames=["main"])
    assert nodes(scene) == ["n1", "n2"]


async def test_containers_that_the_fault_itself_replaces_are_no_news(scene):
    await begun(scene, action="pod-failure", selection="live")
    (before,) = scene.node_faults()
    for waiting in (True, False):
        states = [{"name": "main", "containerID": "squall://pause",
                   "state": {"waiting": {}} if waiting else {"running": {}}}]  # fmt: skip
        status = {"status": {"containerStatuses": states}}
        await scene.cluster.patch(POD, "default", "web-n1-0", status, subresource="status")
        await settle()
    (after,) = scene.node_faults()
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert len(scene.hit) == 4


async def test_a_live_selection_follows_a_new_pod_of_the_same_name(scene):
    await begun(scene, action="pod-failure", selection="live")
    await scene.cluster.delete(POD, "default", "web-n1-0")
    made = await scene.cluster.create(POD, pod("web-n1-0", "n2", "other"))
    await settle()
    (fault,) = scene.node_faults()
    told = {t["id"]: (t["podUid"], t.get("incarnation", 0)) for t in fault["spec"]["targets"]}
    assert told["default/web-n1-0"][0] == made["metadata"]["uid"]


async def test_stopping_takes_everything_back_at_the_controller(scene):
    await begun(scene, action="pod-failure")
    await scene.delete("x", POD_CHAOS)
    await settle()
    assert not scene.there("x", POD_CHAOS)
    assert not scene.hit


async def test_agents_are_told_how_much_of_what_matches_is_hit(scene):
    await begun(scene, action="pod-kill", mode="fixed", value="2")
    (fault,) = scene.node_faults()
    assert fault["spec"]["extent"] == {".": {"hit": 2, "of": 4}}
    for target in fault["spec"]["targets"]:
        await scene.cluster.delete(POD, "default", target["id"].partition("/")[2])
    await settle()
    assert scene.node_faults()[0]["spec"]["extent"] == {".": {"hit": 2, "of": 4}}


async def test_an_experiment_that_hits_too_much_hits_nobody_and_says_why(scene):
    await begun(scene, settings={"policy": Policy(most_percent=50)}, action="pod-kill")
    assert not scene.node_faults()
    (selected,) = [c for c in scene.status("x", POD_CHAOS)["conditions"] if c["type"] == "Selected"]
    assert selected["status"] == "False"
    assert "would hit 4 of 4 pods; this installation allows 50 %" in selected["reason"]


async def test_namespaces_are_watched_only_where_they_must_opt_in(scene):
    await begun(scene, action="pod-kill")
    assert NAMESPACE not in {watcher[0] for watcher in scene.cluster._watchers}


async def test_a_namespace_that_opts_in_is_hit_at_once(scene):
    await scene.cluster.create(NAMESPACE, {"metadata": {"name": "default"}})
    await begun(scene, settings={"policy": Policy(opt_in_namespaces=True)}, action="pod-kill")
    assert not scene.node_faults()
    opened = {"metadata": {"annotations": {INJECT: INJECT_ENABLED}}}
    await scene.cluster.patch(NAMESPACE, None, "default", opened)
    await settle()
    assert set(scene.phases("x", POD_CHAOS).values()) == {"Injected"}


async def test_a_preview_says_what_would_be_refused(scene):
    await scene.cluster.create(NAMESPACE, {"metadata": {"name": "default"}})
    manifest = experiment("x", POD_CHAOS) | {"kind": "PodChaos"}
    for policy, said in (
        (Policy(protected_namespaces=["default"]), "is in default, which this installation"),
        (Policy(opt_in_namespaces=True), "is not annotated"),
        (Policy(most_percent=10), "would hit 4 of 4 pods"),
    ):
        found = await preview(scene.cluster, KINDS, manifest, new_seed=1, policy=policy)
        assert said in "\n".join(found.lines())
        assert not found.selection.chosen
