"""An installation for one namespace, which sees no other."""

import pytest

from squall.api.cluster import NODE, POD, ApiError
from squall.api.policy import Policy
from squall.clock import settle
from squall.controller.tests.scene import NETWORK, Scene, experiment, pod


class OneNamespace:
    """The API as an account with Roles alone sees it."""

    def __init__(self, cluster, *, may_read_nodes):
        self._cluster, self._may_read_nodes, self.watched = cluster, may_read_nodes, []

    def __getattr__(self, verb):
        return getattr(self._cluster, verb)

    async def watch(self, resource, namespace=None, *, labels="", fields=""):
        self.watched.append((resource.kind, namespace))
        everywhere = resource.namespaced and namespace is None
        if everywhere or (resource == NODE and not self._may_read_nodes):
            raise ApiError(403, "Forbidden", f"{resource.plural} is forbidden")
        async for event in self._cluster.watch(resource, namespace, labels=labels, fields=fields):
            yield event


@pytest.fixture
async def scene():
    scene = Scene()
    await scene.node("n1")
    yield scene
    await scene.close()


def controller(scene, *, may_read_nodes=False):
    cluster = OneNamespace(scene.cluster, may_read_nodes=may_read_nodes)
    scene.controller(cluster=cluster, policy=Policy(target_namespace="default"))
    return cluster


async def test_it_works_without_any_right_outside(scene):
    await scene.pod("web-0")
    cluster = controller(scene)
    await settle()
    await scene.apply()
    await settle()
    assert scene.hit == {"default/web-0"}
    assert ("Pod", "default") in cluster.watched
    assert ("NetworkChaos", "default") in cluster.watched
    assert ("Pod", "squall") in cluster.watched  # who holds the lease


async def test_nodes_are_not_asked_for_all_the_time(scene):
    cluster = controller(scene)
    await scene.advance(250)
    assert cluster.watched.count(("Node", None)) == 1


async def test_a_pod_on_a_node_that_came_later_is_hit_too(scene):
    controller(scene)
    await settle()
    await scene.node("n2")
    await scene.pod("web-0", "n2")
    await scene.apply()
    await settle()
    assert scene.hit == {"default/web-0"}


async def test_labels_of_nodes_cannot_be_asked_for_and_the_reason_is_told(scene):
    await scene.pod("web-0")
    controller(scene)
    await settle()
    selector = {"nodeSelectors": {"zone": "a"}, "labelSelectors": {"app": "web"}}
    await scene.apply(selector=selector)
    await settle()
    assert not scene.hit
    assert any("may not read nodes" in event["message"] for event in scene.events())


async def test_where_nodes_may_be_read_their_labels_count(scene):
    await scene.pod("web-0")
    await scene.pod("web-1", "n2")
    await scene.node("n2")
    await scene.cluster.patch(NODE, None, "n2", {"metadata": {"labels": {"zone": "a"}}})
    controller(scene, may_read_nodes=True)
    await settle()
    await scene.apply(selector={"nodeSelectors": {"zone": "a"}, "labelSelectors": {"app": "web"}})
    await settle()
    assert scene.hit == {"default/web-1"}


async def test_what_is_in_other_namespaces_is_left_alone(scene):
    other = pod("web-9")
    other["metadata"]["namespace"] = "other"
    await scene.cluster.create(POD, other)
    elsewhere = experiment("slow")
    elsewhere["metadata"]["namespace"] = "other"
    await scene.cluster.create(NETWORK, elsewhere)
    controller(scene)
    await settle()
    await scene.apply(selector={"namespaces": ["other"], "labelSelectors": {"app": "web"}})
    await settle()
    assert not scene.hit
