"""Whom a controller passes over in a cluster: pods of nodes on which nobody could act."""

import base64

import pytest

from squall.api.cluster import LEASE, POD, SECRET, ApiError
from squall.api.metadata import CONTROLLER_NODE, SEALING_KEY
from squall.api.names import agent_lease_name
from squall.clock import settle
from squall.controller.tests.scene import KINDS, NETWORK, POD_CHAOS, Scene, pod
from squall.injection.kind import SecretKey
from squall.sealing import new_key, public_of, unseal

SILENCE_SECONDS = 180


@pytest.fixture
async def scene():
    """Two nodes with a pod each; on the second no agent has begun yet."""
    scene = Scene()
    await scene.node("n1")
    await scene.node("n2", agent=False)
    for node in ("n1", "n2"):
        await scene.pod(f"web-{node}", node, f"c-{node}")
    yield scene
    await scene.close()


async def begun(scene, resource=NETWORK, *, cluster=None, **spec):
    scene.controller(api_node=CONTROLLER_NODE, cluster=cluster)
    await settle()
    await scene.apply("x", resource, **spec)
    await settle()


def hit(scene, resource=NETWORK):
    return sorted(record["id"] for record in scene.records("x", resource))


def selected(scene, resource=NETWORK):
    status = scene.status("x", resource)
    (condition,) = [c for c in status["conditions"] if c["type"] == "Selected"]
    return condition["status"], condition.get("reason", "")


async def test_a_pod_on_a_node_without_an_agent_is_passed_over_and_an_event_says_so(scene):
    await begun(scene)
    assert hit(scene) == ["default/web-n1"]
    (event,) = [e for e in scene.events() if e["reason"] == "PassedOver"]
    assert event["type"] == "Warning"
    assert "default/web-n2 cannot be reached: no agent runs on node n2" in event["message"]


async def test_where_nobody_is_left_it_says_why_at_once_and_begins_when_an_agent_does(scene):
    await begun(scene, selector={"labelSelectors": {"app": "web"}, "nodes": ["n2"]})
    status, reason = selected(scene)
    assert status == "False"
    assert "no agent runs on node n2" in reason
    await scene.tell("n2")
    await settle()
    assert hit(scene) == ["default/web-n2"]


async def test_a_node_that_cannot_do_what_the_fault_takes_is_passed_over_with_its_reason(scene):
    await scene.tell("n2", shape="the kernel has no nftables")
    await begun(scene)
    assert hit(scene) == ["default/web-n1"]
    (event,) = [e for e in scene.events() if e["reason"] == "PassedOver"]
    assert "node n2 cannot: network:shape: the kernel has no nftables" in event["message"]
    cut = {"action": "partition", "delay": None, "direction": "both",
           "target": {"mode": "all", "selector": {"labelSelectors": {"app": "db"}}}}  # fmt: skip
    await scene.pod("db", "n1", "c-db", app="db")
    await scene.apply("cut", NETWORK, **cut)
    await settle()
    ids = {record["id"] for record in scene.records("cut")}
    assert ids == {"default/web-n1", "default/web-n2", "default/db"}


async def test_pods_that_are_only_the_other_end_need_no_agent(scene):
    await scene.pod("db", "n2", "c-db", app="db")
    far = {"mode": "all", "selector": {"labelSelectors": {"app": "db"}}}
    await begun(scene, direction="to", target=far, selector={"pods": {"default": ["web-n1"]}})
    assert hit(scene) == ["default/db", "default/web-n1"]


@pytest.mark.parametrize("action", ["pod-kill", "pod-failure"])
async def test_what_the_api_alone_brings_about_needs_no_agent(scene, action):
    await begun(scene, POD_CHAOS, action=action)
    assert hit(scene, POD_CHAOS) == ["default/web-n1", "default/web-n2"]


async def test_container_kill_needs_an_agent_and_nothing_of_its_node(scene):
    await scene.tell("n2", freeze="no freezer")
    await begun(scene, POD_CHAOS, action="container-kill", containerNames=["main"])
    assert hit(scene, POD_CHAOS) == ["default/web-n1/main", "default/web-n2/main"]


async def test_an_agent_that_is_silent_for_three_renewals_is_gone_until_it_tells_again(scene):
    await scene.tell("n2")
    scene.controller(api_node=CONTROLLER_NODE)
    await settle()
    for _ in range(3):
        await scene.advance(SILENCE_SECONDS / 3)
        await scene.tell("n1")
        await settle()
    only = {"selector": {"labelSelectors": {"app": "web"}, "nodes": ["n2"]}}
    await scene.apply("x", **only)
    await settle()
    assert "no agent runs on node n2" in selected(scene)[1]
    await scene.apply("y", selector={"labelSelectors": {"app": "web"}, "nodes": ["n1"]})
    await settle()
    assert scene.records("y")
    await scene.tell("n2")
    await settle()
    assert hit(scene) == ["default/web-n2"]


async def test_an_agent_that_vanishes_later_changes_nothing_for_who_is_hit(scene):
    await scene.tell("n2")
    await begun(scene, selection="live")
    both = hit(scene)
    await scene.cluster.delete(LEASE, "squall", "squall-agent-n2")
    await scene.cluster.create(POD, pod("web-new", "n2", "c-new"))
    await settle()
    assert hit(scene) == both == ["default/web-n1", "default/web-n2"]
    await scene.tell("n2")
    await settle()
    assert hit(scene) == [*sorted([*both, "default/web-new"])]


class _NoLeases:
    """An API on which agents may not write Leases, so that nobody may list them either."""

    def __init__(self, cluster):
        self._cluster = cluster

    def __getattr__(self, name):
        return getattr(self._cluster, name)

    async def watch(self, resource, namespace=None, *, labels="", fields=""):
        if resource == LEASE and not fields:
            raise ApiError(403, "Forbidden", "leases is forbidden")
        async for event in self._cluster.watch(resource, namespace, labels=labels, fields=fields):
            yield event


async def test_where_nobody_may_know_agents_everybody_is_hit(scene):
    await begun(scene, cluster=_NoLeases(scene.cluster))
    assert hit(scene) == ["default/web-n1", "default/web-n2"]


SECRET_KEY = SecretKey("vault", "web", "tls.key")
HTTP = KINDS["HTTPChaos"].resource
TLS = {"secretName": "web", "secretNamespace": "vault", "certName": "tls.key", "keyName": "tls.key"}


async def test_values_are_sealed_for_the_agent_of_each_node_by_the_key_in_its_lease(scene):
    keys = {"n1": new_key(), "n2": new_key()}
    await scene.tell("n2")
    for node, key in keys.items():
        told = {"metadata": {"annotations": {SEALING_KEY: public_of(key)}}}
        await scene.cluster.patch(LEASE, "squall", agent_lease_name(node), told)
    meta = {"name": "web", "namespace": "vault"}
    data = {"tls.key": base64.b64encode(b"private").decode()}
    await scene.cluster.create(SECRET, {"metadata": meta, "data": data})
    await begun(scene, HTTP, target="Request", port=443, abort=True, tls=TLS)
    faults = {fault["spec"]["nodeName"]: fault["spec"] for fault in scene.node_faults()}
    for node, key in keys.items():
        sealed, uid = faults[node]["sealed"], faults[node]["experiment"]["uid"]
        assert sealed["recipient"] == public_of(key)
        assert unseal(key, sealed["box"], f"{uid}/{node}") == {str(SECRET_KEY): b"private"}


async def test_an_agent_that_tells_no_key_gets_the_reason_and_nothing_sealed(scene):
    meta = {"name": "web", "namespace": "vault"}
    await scene.cluster.create(SECRET, {"metadata": meta, "data": {"tls.key": "cHJpdmF0ZQ=="}})
    await begun(scene, HTTP, target="Request", port=443, abort=True, tls=TLS)
    (fault,) = scene.node_faults()
    assert "has told no key" in fault["spec"]["sealed"]["problem"]
    assert not fault["spec"]["sealed"].get("box")
