"""What others saw of a pod saves reading it, and is never believed where it is outdated."""

from copy import deepcopy

import pytest

from squall.api.cluster import POD
from squall.api.fake_cluster import FakeCluster
from squall.injection.world.target import Target
from squall.kubernetes.paused_pods import PausedPods

PAUSE = "registry.example/pause:3.10"


class Seen:
    """A watch of all pods that may lag behind."""

    def __init__(self, cluster):
        self.cluster, self.pods = cluster, {}

    def catch_up(self):
        self.pods = deepcopy(
            {name: obj for (kind, _, name), obj in self.cluster.objects.items() if kind == POD}
        )

    def __call__(self, _namespace, name):
        return self.pods.get(name)


@pytest.fixture
def cluster():
    return FakeCluster()


@pytest.fixture
def seen(cluster):
    return Seen(cluster)


@pytest.fixture
def pods(cluster, seen):
    return PausedPods(cluster, PAUSE, last_seen=seen)


@pytest.fixture
async def target(cluster, seen):
    pod = {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"restartPolicy": "Always", "containers": [{"name": "app", "image": "app:1"}]},
    }
    uid = (await cluster.create(POD, pod))["metadata"]["uid"]
    seen.catch_up()
    cluster.calls.clear()
    return Target("default/web", uid, "", 0, 0)


def asked(cluster):
    return [verb for verb, _, _ in cluster.calls]


def image(cluster):
    return cluster.objects[POD, "default", "web"]["spec"]["containers"][0]["image"]


async def set_image(cluster, image):
    containers = [{"name": "app", "image": image}]
    await cluster.patch(POD, "default", "web", {"spec": {"containers": containers}})
    cluster.calls.clear()


async def test_what_was_seen_is_not_read(cluster, seen, pods, target):
    await pods.state(target)
    await pods.stop(target)
    assert asked(cluster) == ["patch"]
    seen.catch_up()
    await pods.let_go(target)
    assert asked(cluster) == ["patch", "patch"]
    assert image(cluster) == "app:1"


async def test_what_was_written_since_is_read_before_ours(cluster, pods, target):
    await set_image(cluster, "app:2")
    await pods.stop(target)
    assert asked(cluster) == ["patch", "get", "patch"]
    await pods.let_go(target)
    assert image(cluster) == "app:2"


async def test_that_there_is_nothing_to_do_is_not_believed_unread(cluster, seen, pods, target):
    await pods.stop(target)
    seen.catch_up()
    await set_image(cluster, "app:2")
    await pods.stop(target)
    assert image(cluster) == PAUSE
    await pods.let_go(target)
    assert image(cluster) == "app:2"


async def test_a_refusal_is_not_believed_unread(cluster, seen, pods, target):
    seen.pods["web"]["metadata"]["annotations"] = {"chaos-mesh-x-app-normal-image": "app:1"}
    await pods.stop(target)
    assert image(cluster) == PAUSE


async def test_what_was_seen_before_our_own_write_is_no_state(cluster, seen, pods, target):
    await pods.stop(target)
    status = {"containerStatuses": [{"name": "app", "image": PAUSE, "state": {"running": {}}}]}
    cluster.objects[POD, "default", "web"]["status"] = status
    assert (await pods.state(target)).stopped is True
    seen.catch_up()
    cluster.calls.clear()
    assert (await pods.state(target)).stopped is True
    assert asked(cluster) == []


async def test_another_pod_of_the_name_is_another_pod(cluster, seen, pods, target):
    seen.pods["web"]["metadata"]["uid"] = "somebody else"
    await pods.stop(target)
    assert asked(cluster) == ["get", "patch"]
