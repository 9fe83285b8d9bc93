"""Containers of other runtimes as Pods."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.api.cluster import NODE, POD
from squall.api.fake_cluster import FakeCluster
from squall.clock import FakeClock, settle
from squall.kubernetes.embedded.pods_mirror import (
    MIRROR,
    Asked,
    Create,
    End,
    Forget,
    mirror,
    pod_name,
    split_labels,
)
from squall.kubernetes.embedded.pods_of_host import HostPods, register
from squall.kubernetes.embedded.pods_status import Host
from squall.node.fake_sandboxes import FakeHostContainers
from squall.node.sandboxes import HostContainer

NOW = 1_800_000_000.0
HOST = Host("laptop", ("192.0.2.1",))
A = "a" * 64
SHOP = HostContainer(
    id=A,
    runtime="docker",
    pid=100,
    started=7,
    at=NOW - 60,
    name="shop_web_1",
    image="nginx:1",
    labels={"com.docker.compose.project": "shop", "com.docker.compose.dir": "/srv/shop"},
    addresses=("172.17.0.2",),
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shop_web_1", "shop-web-1"),
        ("Shop.Web", "shop-web"),
        ("__", "container"),
        ("x" * 80, "x" * 52),
        ("taken", "taken-aaaaaaaaaa"),
    ],
)
def test_a_pod_is_named_after_its_container(name, expected):
    assert pod_name(replace(SHOP, name=name), {"taken"}) == expected


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("com.docker.compose.project", "shop", "label"),
        ("example.com/tier", "front", "label"),
        ("empty", "", "label"),
        ("dir", "/srv/shop", "annotation"),
        ("spaced", "a b", "annotation"),
        ("not a key", "x", "nowhere"),
        ("Example.com/x", "y", "nowhere"),
        ("/x", "y", "nowhere"),
    ],
)
def test_what_kubernetes_allows_stays_a_label(key, value, where):
    labels, annotations = split_labels({key: value})
    assert (key in labels, key in annotations) == (where == "label", where == "annotation")


@given(st.dictionaries(st.text(max_size=70), st.text(max_size=70)))
def test_no_label_is_in_two_places(labels):
    kept, noted = split_labels(labels)
    assert not kept.keys() & noted.keys()
    assert (kept | noted).items() <= labels.items()


def deleted(pod, grace):
    metadata = {"deletionTimestamp": "2027-01-15T08:00:00Z", "deletionGracePeriodSeconds": grace}
    return pod | {"metadata": pod["metadata"] | metadata}


def test_a_pod_being_deleted_takes_its_container_along():
    (created,) = mirror([SHOP], [], {}, HOST, NOW)
    assert isinstance(created, Create)
    dying = deleted(created.pod, 30)
    asked = {A: Asked(SHOP.started, NOW)}
    assert mirror([SHOP], [dying], {}, HOST, NOW) == [End(SHOP, 15)]
    assert mirror([SHOP], [dying], asked, HOST, NOW + 29) == []
    assert mirror([SHOP], [dying], asked, HOST, NOW + 30) == [End(SHOP, 9)]
    assert mirror([], [dying], asked, HOST, NOW + 1) == [Forget(dying)]
    restarted = replace(SHOP, started=8)
    assert mirror([restarted], [dying], asked, HOST, NOW + 1) == [Forget(dying)]


class Laptop:
    def __init__(self):
        self.clock, self.cluster = FakeClock(), FakeCluster()
        self.containers = FakeHostContainers()

    @asynccontextmanager
    async def up(self):
        pods = HostPods(self.cluster, self.containers, HOST, self.clock)
        task = asyncio.create_task(pods.run())
        await settle()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def laptop():
    return Laptop()


async def test_a_container_comes_and_goes_as_a_pod(laptop):
    async with laptop.up():
        laptop.containers.containers[A] = SHOP
        await laptop.clock.advance(2)
        pod = await laptop.cluster.get(POD, "default", "shop-web-1")
        assert pod["metadata"]["labels"] == {"com.docker.compose.project": "shop"}
        assert pod["metadata"]["annotations"]["com.docker.compose.dir"] == "/srv/shop"
        assert pod["status"]["podIP"] == "172.17.0.2"
        (status,) = pod["status"]["containerStatuses"]
        assert (status["containerID"], status["ready"]) == (f"docker://{A}", True)
        writes = len(laptop.cluster.calls)
        await laptop.clock.advance(10)
        assert len(laptop.cluster.calls) == writes
        laptop.containers.containers.clear()
        await laptop.clock.advance(2)
        assert await laptop.cluster.list(POD) == []


async def test_a_restart_by_its_runtime_is_counted(laptop):
    laptop.containers.containers[A] = SHOP
    async with laptop.up():
        laptop.containers.containers[A] = replace(SHOP, started=8, pid=200, at=NOW)
        await laptop.clock.advance(2)
        (pod,) = await laptop.cluster.list(POD)
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 1


async def test_a_pod_deleted_without_grace_kills_its_container(laptop):
    laptop.containers.containers[A] = SHOP
    async with laptop.up():
        await laptop.cluster.delete(POD, "default", "shop-web-1")
        await settle()
        assert laptop.containers.signals == [(A, 9)]
        await laptop.clock.advance(3)
        assert await laptop.cluster.list(POD) == []


async def test_pods_of_others_are_left_alone_and_keep_their_names(laptop):
    laptop.containers.containers[A] = SHOP
    foreign = {"metadata": {"name": "shop-web-1", "namespace": "default"}, "spec": {}}
    await laptop.cluster.create(POD, foreign)
    async with laptop.up():
        pods = await laptop.cluster.list(POD)
        mirrored = [p for p in pods if MIRROR in p["metadata"].get("annotations", {})]
        assert [p["metadata"]["name"] for p in mirrored] == [f"shop-web-1-{A[:10]}"]
        await laptop.cluster.delete(POD, "default", "shop-web-1")
        await settle()
        assert laptop.containers.signals == []


async def test_this_host_is_a_ready_node(laptop):
    for _ in range(2):
        await register(laptop.cluster, HOST, laptop.clock)
    node = await laptop.cluster.get(NODE, None, "laptop")
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "laptop"
    assert node["status"]["conditions"][0]["status"] == "True"
