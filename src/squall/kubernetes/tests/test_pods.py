"""The Pod of a target, through the port that injectors use."""

import pytest

from squall.api.cluster import POD
from squall.api.fake_cluster import FakeCluster
from squall.errors import TargetGone, TryAgain
from squall.injection.world.fake_containers import FakeContainers
from squall.injection.world.pods import PodState
from squall.injection.world.target import Target
from squall.kubernetes.embedded.pods_status import is_held_down
from squall.kubernetes.pods import FrozenPods


@pytest.fixture
def cluster():
    return FakeCluster()


@pytest.fixture
def containers():
    return FakeContainers()


@pytest.fixture
def pods(cluster, containers):
    return FrozenPods(cluster, containers)


async def stored(cluster):
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    pod = {"metadata": {"name": "web", "namespace": "default"}, "spec": {}, "status": ready}
    uid = (await cluster.create(POD, pod))["metadata"]["uid"]
    return Target("default/web/app", uid, "a" * 64, 1, 1)


async def test_a_pod_is_deleted_by_its_uid(cluster, pods):
    target = await stored(cluster)
    assert await pods.exists(target)
    await pods.delete(target, grace_seconds=0)
    assert not await pods.exists(target)


async def test_a_later_pod_of_the_same_name_is_left_alone(cluster, pods):
    first = await stored(cluster)
    await pods.delete(first, grace_seconds=0)
    second = await stored(cluster)
    for ask in (pods.delete(first, grace_seconds=0), pods.stop(first), pods.let_go(first)):
        with pytest.raises(TargetGone):
            await ask
    assert not await pods.exists(first)
    assert await pods.exists(second)
    assert not is_held_down(await cluster.get(POD, "default", "web"))


async def test_a_pod_is_frozen_and_held_down_and_let_go(cluster, containers, pods):
    target = await stored(cluster)
    for stopped in (True, True, False, False):
        await (pods.stop(target) if stopped else pods.let_go(target))
        assert is_held_down(await cluster.get(POD, "default", "web")) is stopped
        assert await containers.frozen(target) is stopped
        assert await pods.state(target) == PodState(stopped, ready=True)
    assert [verb for verb, _, _ in cluster.calls].count("patch") == 2


async def test_a_pod_whose_container_ended_is_still_let_go(cluster, containers, pods):
    target = await stored(cluster)
    await pods.stop(target)
    containers.gone.add(target.id)
    with pytest.raises(TargetGone):
        await pods.let_go(target)
    assert not is_held_down(await cluster.get(POD, "default", "web"))


async def test_a_target_thaws_while_the_api_is_away(cluster, containers, pods):
    target = await stored(cluster)
    await pods.stop(target)
    cluster.down = True
    with pytest.raises(TryAgain):
        await pods.let_go(target)
    assert not await containers.frozen(target)


async def test_a_missing_pod_is_gone(cluster, pods):
    target = await stored(cluster)
    await cluster.delete(POD, "default", "web")
    with pytest.raises(TargetGone):
        await pods.stop(target)
    with pytest.raises(TargetGone):
        await pods.delete(target, grace_seconds=0)
    assert await pods.state(target) == PodState(stopped=True, ready=False)


async def test_while_the_api_is_away_is_a_matter_of_trying_again(cluster, pods):
    target = await stored(cluster)
    cluster.down = True
    for ask in (
        pods.delete(target, grace_seconds=0),
        pods.exists(target),
        pods.state(target),
        pods.stop(target),
        pods.let_go(target),
    ):
        with pytest.raises(TryAgain):
            await ask
