"""Pods that stand still because their containers run the pause image."""

import asyncio
import contextlib

import pytest

from squall.api.cluster import POD, ApiError
from squall.api.fake_cluster import FakeCluster
from squall.errors import TargetGone, TryAgain, Unsupported
from squall.injection.world.target import Target
from squall.kubernetes.paused_pods import PausedPods
from squall.kubernetes.pausing import image_key

PAUSE = "registry.example/pause:3.10"
APP, SIDECAR = image_key("app", "normal"), image_key("mesh", "init")


@pytest.fixture
def cluster():
    return FakeCluster()


@pytest.fixture
def pods(cluster):
    return PausedPods(cluster, PAUSE)


def running(name, image, **more):
    return {"name": name, "image": image, "imageID": "x", "state": {"running": {}}, **more}


async def stored(cluster, name="web", annotations=None, **spec):
    pod = {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"},
                     "annotations": {"team": "red"} | (annotations or {})},
        "spec": {
            "restartPolicy": "Always",
            "initContainers": [
                {"name": "setup", "image": "setup:1"},
                {"name": "mesh", "image": "mesh:1", "restartPolicy": "Always"},
            ],
            "containers": [{"name": "app", "image": "app:1", "command": ["x"]},
                           {"name": "log", "image": "log:1"}],
        } | spec,
        "status": {
            "initContainerStatuses": [running("mesh", "mesh:1")],
            "containerStatuses": [running("app", "app:1"), running("log", "log:1")],
        },
    }  # fmt: skip
    made = await cluster.create(POD, pod)
    return Target(f"default/{name}", made["metadata"]["uid"], "", 0, 0)


def pod_of(cluster):
    return cluster.objects[POD, "default", "web"]


def images(pod):
    spec = pod["spec"]
    return {c["name"]: c["image"] for c in (*spec["initContainers"], *spec["containers"])}


def shown(cluster, image):
    """Let a kubelet say that every container runs an image."""
    status = {
        "initContainerStatuses": [running("mesh", image)],
        "containerStatuses": [running("app", image), running("log", image)],
    }
    pod_of(cluster)["status"] = status


async def test_everything_that_runs_is_replaced_and_given_back(cluster, pods):
    target = await stored(cluster)
    before = pod_of(cluster)
    await pods.stop(target)
    assert images(pod_of(cluster)) == {
        "setup": "setup:1", "mesh": PAUSE, "app": PAUSE, "log": PAUSE
    }  # fmt: skip
    notes = pod_of(cluster)["metadata"]["annotations"]
    assert (notes[APP], notes[SIDECAR]) == ("app:1", "mesh:1")
    await pods.let_go(target)
    after = pod_of(cluster)
    before["metadata"]["resourceVersion"] = after["metadata"]["resourceVersion"]
    before["metadata"]["generation"] = after["metadata"]["generation"]
    assert after == before


async def test_one_read_and_one_write_each_way(cluster, pods):
    target = await stored(cluster)
    cluster.calls.clear()
    await pods.stop(target)
    await pods.let_go(target)
    assert [verb for verb, _, _ in cluster.calls] == ["get", "patch"] * 2


async def test_stopped_twice_by_whatever_pause_image_the_first_images_survive(cluster, pods):
    target = await stored(cluster)
    await pods.stop(target)
    once = pod_of(cluster)
    await pods.stop(target)
    await PausedPods(cluster, "newer/pause:4").stop(target)
    assert pod_of(cluster) is once
    await PausedPods(cluster, "newer/pause:4").let_go(target)
    assert images(pod_of(cluster))["app"] == "app:1"


async def test_an_image_that_its_owner_set_meanwhile_is_kept(cluster, pods):
    target = await stored(cluster)
    await pods.stop(target)
    containers = [c | {"image": "app:2"} for c in pod_of(cluster)["spec"]["containers"][:1]]
    containers += pod_of(cluster)["spec"]["containers"][1:]
    await cluster.patch(POD, "default", "web", {"spec": {"containers": containers}})
    assert (await pods.state(target)).stopped is False
    await pods.let_go(target)
    assert images(pod_of(cluster))["app"] == "app:2"
    assert images(pod_of(cluster))["log"] == "log:1"


async def test_stopping_again_takes_in_what_its_owner_set_meanwhile(cluster, pods):
    target = await stored(cluster)
    await pods.stop(target)
    containers = [c | {"image": f"{c['name']}:2"} for c in pod_of(cluster)["spec"]["containers"]]
    await cluster.patch(POD, "default", "web", {"spec": {"containers": containers}})
    await pods.stop(target)
    assert images(pod_of(cluster))["app"] == PAUSE
    await pods.let_go(target)
    assert images(pod_of(cluster))["app"] == "app:2"
    assert images(pod_of(cluster))["mesh"] == "mesh:1"


async def test_a_write_in_between_is_read_before_ours(cluster, pods):
    target = await stored(cluster)
    interfered: list[str] = []

    def interfere(verb, _resource, _name):
        if verb == "patch" and not interfered:
            interfered.append(verb)
            pod = pod_of(cluster)
            first = pod["spec"]["containers"][0] | {"image": "app:2"}
            spec = pod["spec"] | {"containers": [first, *pod["spec"]["containers"][1:]]}
            cluster._store((POD, "default", "web"), pod | {"spec": spec}, "MODIFIED")

    cluster.on_call = interfere
    await pods.stop(target)
    assert pod_of(cluster)["metadata"]["annotations"][APP] == "app:2"


async def test_a_kubelet_is_believed_only_when_it_says_so(cluster, pods):
    target = await stored(cluster)
    assert (await pods.state(target)).stopped is False
    await pods.stop(target)
    assert (await pods.state(target)).stopped is None
    shown(cluster, PAUSE)
    assert (await pods.state(target)).stopped is True
    pod_of(cluster)["status"]["containerStatuses"][0]["image"] = "app:1"
    assert (await pods.state(target)).stopped is None
    pod_of(cluster)["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "Crash"}}
    assert (await pods.state(target)).stopped is True
    pod_of(cluster)["status"] = {}
    assert (await pods.state(target)).stopped is None


@pytest.mark.parametrize(
    ("pause", "shown_as"),
    [
        ("pause", {"image": "docker.io/library/pause:latest"}),
        ("mirror/pause:3", {"image": "docker.io/mirror/pause:3"}),
        ("localhost:5000/pause", {"image": "localhost:5000/pause:latest"}),
        ("r/pause@sha256:abc", {"image": "sha256:1", "imageID": "r/pause@sha256:abc"}),
    ],
)
async def test_an_image_is_known_by_whatever_name_a_runtime_gives_it(cluster, pause, shown_as):
    target = await stored(cluster, initContainers=[])
    pods = PausedPods(cluster, pause)
    await pods.stop(target)
    names = ("app", "log")
    status = {"containerStatuses": [running(n, "") | shown_as for n in names]}
    pod_of(cluster)["status"] = status
    assert (await pods.state(target)).stopped is True


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"restartPolicy": "Never"}, "has restartPolicy Never"),
        ({"annotations": {"kubernetes.io/config.mirror": "x"}}, "is a static pod"),
    ],
)
async def test_what_could_not_be_undone_is_refused(cluster, pods, made, reason):
    target = await stored(cluster, **made)
    before = pod_of(cluster)
    with pytest.raises(Unsupported, match=reason):
        await pods.stop(target)
    await pods.let_go(target)
    assert pod_of(cluster) is before


async def test_a_pod_that_chaos_mesh_holds_down_is_waited_for(cluster, pods):
    held = {"chaos-mesh-other-pod-failure-app-normal-image": "app:1"}
    target = await stored(cluster, annotations=held)
    with pytest.raises(TryAgain, match="Chaos Mesh holds"):
        await pods.stop(target)


async def test_images_that_the_api_lets_nobody_change_are_refused(cluster, pods):
    target = await stored(cluster)

    def refuse(verb, _resource, _name):
        if verb == "patch":
            raise ApiError(422, "Invalid", "pod updates may not change this")

    cluster.on_call = refuse
    with pytest.raises(Unsupported, match="may not change this"):
        await pods.stop(target)


async def test_a_later_pod_of_the_same_name_is_left_alone(cluster, pods):
    first = await stored(cluster)
    await pods.delete(first, grace_seconds=0)
    await stored(cluster)
    before = pod_of(cluster)
    for ask in (pods.stop(first), pods.let_go(first), pods.state(first)):
        with pytest.raises(TargetGone):
            await ask
    assert pod_of(cluster) is before


async def test_stopped_pods_are_found_by_one_question(cluster, pods):
    target, other = await stored(cluster), await stored(cluster, "other")
    await pods.stop(target)
    cluster.calls.clear()
    assert await pods.all_stopped() == [target]
    assert len(cluster.calls) == 1
    await pods.let_go(target)
    await pods.stop(other)
    assert await pods.all_stopped() == [other]


def test_a_key_fits_whatever_the_container_is_called():
    names = ["a", "x" * 63, "x" * 62 + "y"]
    keys = {image_key(name, sort) for name in names for sort in ("normal", "init")}
    assert len(keys) == 6
    assert all(len(key) <= 63 for key in keys)


def asked(cluster):
    return [verb for verb, kind, _ in cluster.calls if kind == "Pod" and verb != "create"]


@contextlib.asynccontextmanager
async def followed(pods):
    following = asyncio.create_task(pods.follow())
    await asyncio.sleep(0)
    yield
    following.cancel()
    await asyncio.wait([following])


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_pods_that_are_followed_are_read_once_and_written_twice(cluster, pods):
    target = await stored(cluster)
    async with followed(pods):
        await pods.stop(target)
        assert (await pods.state(target)).stopped is None
        shown(cluster, PAUSE)
        touch = {"metadata": {"annotations": {"kubelet": "was here"}}}
        await cluster.patch(POD, "default", "web", touch)
        await settled()
        assert (await pods.state(target)).stopped
        await pods.let_go(target)
        assert (await pods.state(target)).stopped is False
    kubelets = ["patch"]
    assert asked(cluster) == ["get", "patch", *kubelets, "patch"]


async def test_what_the_watch_has_not_told_yet_is_found_out_by_a_refused_write(cluster, pods):
    target = await stored(cluster)
    async with followed(pods):
        await pods.stop(target)
        pod_of(cluster)["metadata"]["resourceVersion"] = "77"
        pod_of(cluster)["spec"]["containers"][0]["image"] = "app:2"
        await pods.let_go(target)
        assert images(pod_of(cluster)) == {
            "setup": "setup:1", "mesh": "mesh:1", "app": "app:2", "log": "log:1"
        }  # fmt: skip


async def test_who_gave_up_waiting_has_not_asked_in_vain(cluster, pods):
    target = await stored(cluster)
    hurried = asyncio.create_task(pods.read(target))
    await asyncio.sleep(0)
    hurried.cancel()
    await pods.stop(target)
    assert asked(cluster) == ["get", "patch"]


async def test_nothing_is_known_of_pods_that_nobody_follows_any_more(cluster, pods):
    target = await stored(cluster)
    async with followed(pods):
        await pods.stop(target)
    await cluster.delete(POD, "default", "web")
    with pytest.raises(TargetGone):
        await pods.state(target)
