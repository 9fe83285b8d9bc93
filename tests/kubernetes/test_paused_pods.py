"""Pods that stand still by their images, on a real API server: it says what may be changed."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from copy import deepcopy
from typing import Any

import pytest

from squall.api.cluster import POD, NotFound, Object
from squall.errors import TargetGone, Unsupported
from squall.injection.world.pods import PodState
from squall.injection.world.target import Target
from squall.kubernetes.client import HttpCluster
from squall.kubernetes.paused_pods import TRIES, PausedPods
from testbed.apiserver import ApiServer
from tests.kubernetes.conftest import new_namespace

pytestmark = pytest.mark.kubernetes

PAUSE = "registry.k8s.io/pause:3.10"


@pytest.fixture
async def cluster(real: ApiServer) -> AsyncIterator[HttpCluster]:
    async with HttpCluster.from_kubeconfig(real.kubeconfig) as cluster:
        yield cluster


@pytest.fixture
async def namespace(cluster: HttpCluster) -> str:
    return await new_namespace(cluster)


async def made(cluster: HttpCluster, namespace: str, name: str, **spec: Any) -> Target:
    volume = {"name": "data", "mountPath": "/data"}
    containers = [
        {"name": "app", "image": "app:1", "command": ["run"], "args": ["--now"],
         "env": [{"name": "A", "value": "b"}], "volumeMounts": [volume],
         "readinessProbe": {"tcpSocket": {"port": 80}}, "ports": [{"containerPort": 80}],
         "resources": {"requests": {"cpu": "10m"}}},
        {"name": "log", "image": "log@sha256:" + "a" * 64},
    ]  # fmt: skip
    pod = {
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "web"}},
        "spec": {
            "nodeName": "nowhere",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "initContainers": [
                {"name": "setup", "image": "setup:1"},
                {"name": "mesh", "image": "mesh:1", "restartPolicy": "Always"},
            ],
            "containers": containers,
            "volumes": [{"name": "data", "emptyDir": {}}],
        }
        | spec,
    }
    uid = (await cluster.create(POD, pod))["metadata"]["uid"]
    return Target(f"{namespace}/{name}", uid, "", 0, 0)


def compared(pod: Object) -> Object:
    """Take what differs between any two versions of an object away."""
    pod = deepcopy(pod)
    for name in ("resourceVersion", "generation", "managedFields"):
        pod["metadata"].pop(name, None)
    return pod


async def stopped_in(namespace: str, pods: PausedPods) -> set[str]:
    found = await pods.all_stopped()
    return {target.id for target in found if target.id.startswith(f"{namespace}/")}


async def says(cluster: HttpCluster, target: Target, image: str) -> None:
    """Say what a kubelet says of a pod whose containers run an image."""
    namespace, name = target.id.split("/")

    def statuses(*names: str) -> list[Object]:
        return [
            {"name": n, "image": image, "imageID": "", "ready": True, "restartCount": 1,
             "containerID": f"x://{n}", "started": True,
             "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
            for n in names
        ]  # fmt: skip

    status = {
        "phase": "Running",
        "containerStatuses": statuses("app", "log"),
        "initContainerStatuses": statuses("mesh"),
    }
    await cluster.patch(POD, namespace, name, {"status": status}, subresource="status")


async def test_a_pod_is_stopped_and_given_back_exactly(
    cluster: HttpCluster, namespace: str
) -> None:
    target, pods = await made(cluster, namespace, "web"), PausedPods(cluster, PAUSE)
    before = await cluster.get(POD, namespace, "web")
    await pods.stop(target)
    await pods.stop(target)
    during = await cluster.get(POD, namespace, "web")
    assert [c["image"] for c in during["spec"]["containers"]] == [PAUSE, PAUSE]
    assert [c["image"] for c in during["spec"]["initContainers"]] == ["setup:1", PAUSE]
    assert await pods.state(target) == PodState(None, ready=False)
    await says(cluster, target, PAUSE)
    assert (await pods.state(target)).stopped is True
    assert await stopped_in(namespace, pods) == {target.id}
    await pods.let_go(target)
    after = await cluster.get(POD, namespace, "web")
    assert compared(after) | {"status": 0} == compared(before) | {"status": 0}
    assert await stopped_in(namespace, pods) == set()


async def test_a_kubelet_that_writes_meanwhile_costs_another_look(
    cluster: HttpCluster, namespace: str
) -> None:
    target, pods = await made(cluster, namespace, "web"), PausedPods(cluster, PAUSE)
    before = await cluster.get(POD, namespace, "web")

    async def chatter() -> None:
        for number in range(TRIES - 1):  # each can outrun one try
            await says(cluster, target, f"app:{number}")

    async with asyncio.TaskGroup() as group:
        group.create_task(chatter())
        group.create_task(pods.stop(target))
    await pods.let_go(target)
    assert (await cluster.get(POD, namespace, "web"))["spec"] == before["spec"]


async def test_a_pod_that_cannot_be_given_back_is_refused(
    cluster: HttpCluster, namespace: str
) -> None:
    target = await made(cluster, namespace, "once", restartPolicy="Never", initContainers=[])
    with pytest.raises(Unsupported, match="restartPolicy Never"):
        await PausedPods(cluster, PAUSE).stop(target)


async def test_an_image_that_is_none_is_refused(cluster: HttpCluster, namespace: str) -> None:
    target = await made(cluster, namespace, "web")
    with pytest.raises(Unsupported, match="its images cannot be changed"):
        await PausedPods(cluster, " ").stop(target)


async def test_a_pod_is_deleted_by_its_uid(cluster: HttpCluster, namespace: str) -> None:
    target, pods = await made(cluster, namespace, "web"), PausedPods(cluster, PAUSE)
    await pods.delete(target, grace_seconds=0)
    with pytest.raises(NotFound):
        await cluster.get(POD, namespace, "web")
    later = await made(cluster, namespace, "web")
    with pytest.raises(TargetGone):
        await pods.delete(target, grace_seconds=0)
    with pytest.raises(TargetGone):
        await pods.stop(target)
    assert await pods.exists(later)


async def test_ten_pods_stand_still_at_once(cluster: HttpCluster, namespace: str) -> None:
    targets = [await made(cluster, namespace, f"web-{number}") for number in range(10)]
    pods = PausedPods(cluster, PAUSE)
    began = time.monotonic()
    await asyncio.gather(*(pods.stop(target) for target in targets))
    took = time.monotonic() - began
    print(f"10 pods stopped in {took:.3f} s")  # noqa: T201  (a figure to look at with -s)
    assert await stopped_in(namespace, pods) == {t.id for t in targets}
    assert took < 3.0  # ten times what it may take, on a host that does much else


async def test_a_pod_that_is_watched_need_not_be_read(cluster: HttpCluster, namespace: str) -> None:
    pods = PausedPods(cluster, PAUSE, last_seen=cluster.pod_last_seen)
    assert cluster.pod_last_seen(namespace, "web") is None
    async with aclosing(cluster.watch(POD)) as events:
        target = await made(cluster, namespace, "web")
        async for event in events:
            if event.object.get("metadata", {}).get("uid") == target.pod_uid:
                break
        assert cluster.pod_last_seen(namespace, "web") == event.object
        await says(cluster, target, "app:0")  # it lags behind
        await pods.stop(target)
        await pods.let_go(target)
    after = await cluster.get(POD, namespace, "web")
    assert [c["image"] for c in after["spec"]["containers"]] == [
        c["image"] for c in event.object["spec"]["containers"]
    ]
