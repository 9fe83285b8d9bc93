"""The Pod of a target, through the port that injectors use."""

import pytest

from squall.api.cluster import POD
from squall.api.fake_cluster import FakeCluster
from squall.errors import TargetGone, TryAgain
from squall.injection.world.target import Target
from squall.kubernetes.embedded.pods_status import is_held_down
from squall.kubernetes.pods import ClusterPods


@pytest.fixture
def cluster():
    return FakeCluster()


async def stored(cluster):
    pod = {"metadata": {"name": "web", "namespace": "default"}, "spec": {}}
    uid = (await cluster.create(POD, pod))["metadata"]["uid"]
    return Target("default/web/app", uid, "a" * 64, 1, 1)


async def test_a_pod_is_deleted_by_its_uid(cluster):
    target, pods = await stored(cluster), ClusterPods(cluster)
    assert await pods.exists(target)
    await pods.delete(target, grace_seconds=0)
    assert not await pods.exists(target)


async def test_a_later_pod_of_the_same_name_is_left_alone(cluster):
    first, pods = await stored(cluster), ClusterPods(cluster)
    await pods.delete(first, grace_seconds=0)
    second = await stored(cluster)
    for ask in (
        pods.delete(first, grace_seconds=0),
        pods.hold_down(first, down=True),
    ):
        with pytest.raises(TargetGone):
            await ask
    assert not await pods.exists(first)
    assert await pods.exists(second)


async def test_a_pod_is_held_down_and_let_go(cluster):
    target, pods = await stored(cluster), ClusterPods(cluster)
    for down in (True, True, False, False):
        await pods.hold_down(target, down=down)
        pod = await cluster.get(POD, "default", "web")
        assert is_held_down(pod) is down
    assert [verb for verb, _, _ in cluster.calls].count("patch") == 2


async def test_a_missing_pod_is_gone(cluster):
    target, pods = await stored(cluster), ClusterPods(cluster)
    await cluster.delete(POD, "default", "web")
    with pytest.raises(TargetGone):
        await pods.hold_down(target, down=True)
    with pytest.raises(TargetGone):
        await pods.delete(target, grace_seconds=0)


async def test_while_the_api_is_away_is_a_matter_of_trying_again(cluster):
    target, pods = await stored(cluster), ClusterPods(cluster)
    cluster.down = True
    for ask in (
        pods.delete(target, grace_seconds=0),
        pods.exists(target),
        pods.ready(target),
        pods.hold_down(target, down=False),
    ):
        with pytest.raises(TryAgain):
            await ask
