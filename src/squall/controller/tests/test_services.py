"""Services in front of pods, as a controller in a cluster sees them."""

import pytest

from squall.api.cluster import ENDPOINT_SLICE, SERVICE, ApiError
from squall.api.metadata import CONTROLLER_NODE
from squall.api.policy import Policy
from squall.clock import settle
from squall.controller.tests.scene import Scene

CUT = {
    "action": "partition",
    "selector": {"labelSelectors": {"app": "web"}},
    "target": {"mode": "all", "selector": {"labelSelectors": {"app": "db"}}},
}
POD, SERVICES = ["10.0.0.1/32", "fd00::1/128"], ["10.96.0.9/32"]


class Watched:
    """Passes watches on, but for those of Services, where nobody may read them."""

    def __init__(self, cluster, *, may_read):
        self._cluster, self._may_read, self.where = cluster, may_read, []

    def __getattr__(self, verb):
        return getattr(self._cluster, verb)

    async def watch(self, resource, namespace=None, *, labels="", fields=""):
        if resource in (SERVICE, ENDPOINT_SLICE):
            self.where.append((resource.kind, namespace))
            if not self._may_read:
                raise ApiError(403, "Forbidden", f"{resource.plural} is forbidden")
        async for event in self._cluster.watch(resource, namespace, labels=labels, fields=fields):
            yield event


@pytest.fixture
async def scene():
    scene = Scene()
    await scene.node("n1")
    await scene.pod("web-0")
    await scene.pod("db-0", app="db")
    await scene.cluster.create(
        SERVICE, {"metadata": meta("db"), "spec": {"clusterIPs": ["10.96.0.9"]}}
    )
    labels = {"kubernetes.io/service-name": "db"}
    await scene.cluster.create(
        ENDPOINT_SLICE,
        {"metadata": meta("db-1", labels=labels), "endpoints": [{"addresses": ["10.0.0.1"]}]},
    )
    yield scene
    await scene.close()


def meta(name, **more):
    return {"name": name, "namespace": "default", **more}


async def cut(scene, *, may_read=True, **settings):
    cluster = Watched(scene.cluster, may_read=may_read)
    scene.controller(**({"cluster": cluster, "api_node": CONTROLLER_NODE} | settings))
    await settle()
    await scene.apply(**CUT, selection="live")
    await settle()
    return cluster


def far(scene):
    (fault,) = scene.node_faults()
    (of_web,) = fault["spec"]["faults"]["."]["cuts"]
    return [peer["host"] for peer in of_web["peers"]]


async def test_what_is_sent_to_a_service_of_the_targets_is_meant_too(scene):
    await cut(scene)
    assert far(scene) == [*POD, *SERVICES]


async def test_a_live_selection_follows_what_is_behind_a_service(scene):
    await cut(scene)
    where = (ENDPOINT_SLICE, "default", "db-1")
    both = [{"addresses": ["10.0.0.1", "10.0.0.99"]}]
    await scene.cluster.patch(*where, {"endpoints": both})
    await settle()
    assert far(scene) == POD
    await scene.cluster.patch(*where, {"endpoints": [{"addresses": ["10.0.0.1"]}]})
    await settle()
    assert far(scene) == [*POD, *SERVICES]


async def test_without_the_right_to_read_services_pods_are_hit(scene):
    cluster = await cut(scene, may_read=False)
    assert far(scene) == POD
    await scene.advance(250)
    assert len(cluster.where) == 2


async def test_one_host_has_no_services(scene):
    cluster = await cut(scene, api_node="")
    assert (far(scene), cluster.where) == (POD, [])


async def test_an_installation_for_one_namespace_looks_for_services_there_alone(scene):
    cluster = await cut(scene, policy=Policy(target_namespace="default"))
    assert cluster.where == [("Service", "default"), ("EndpointSlice", "default")]
    assert far(scene) == [*POD, *SERVICES]
