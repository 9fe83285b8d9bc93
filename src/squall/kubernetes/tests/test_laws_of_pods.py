"""The laws of the pod room on both ways to make a Pod stand still."""

from copy import deepcopy

import pytest

from squall.api.cluster import POD, Change
from squall.api.fake_cluster import FakeCluster
from squall.clock import FakeClock
from squall.faults import kinds
from squall.injection.contract import Live
from squall.injection.kind import load
from squall.injection.laws import Ground, Laws
from squall.injection.world import World
from squall.injection.world.fake import Fate
from squall.injection.world.fake_containers import FakeContainers
from squall.injection.world.target import Target
from squall.kubernetes.paused_pods import PausedPods
from squall.kubernetes.pods import FrozenPods

KIND = kinds()["PodChaos"]
TARGET = Target("default/web", "uid-web", "c1", 100, 5)
FAILURE = KIND.fault.model_validate({"action": "pod-failure"})
A, B = Live("a/.", FAILURE), Live("b/.", FAILURE)
LIVES = [[[A]], [[A], [A, B], [B]], [[A, B], []], [[A], [], [B]]]


class Api:
    """The Pods of an API, where each write may be the last thing that happens."""

    def __init__(self, fate: Fate) -> None:
        self.cluster = FakeCluster()
        for name in ("web", "foreign"):
            containers = [{"name": "app", "image": "app:1"}, {"name": "log", "image": "log:1"}]
            meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 1,
                    "labels": {"app": name}, "annotations": {"team": "red"}}  # fmt: skip
            pod = {"metadata": meta, "spec": {"containers": containers}}
            self.cluster._store((POD, "default", name), pod, Change.ADDED)

        def count(verb, *_):
            if verb in {"patch", "delete"}:
                fate.change()

        self.cluster.on_call = count

    def snapshot(self):
        pods = deepcopy(list(self.cluster.objects.values()))
        for pod in pods:
            del pod["metadata"]["resourceVersion"], pod["metadata"]["generation"]
        return pods

    def foreign(self):
        mine = self.cluster.objects[POD, "default", "web"]["metadata"]
        notes = {"app": mine["labels"]["app"], "team": mine["annotations"]["team"]}
        return [self.cluster.objects[POD, "default", "foreign"], notes]


def frozen(cluster, containers):
    return FrozenPods(cluster, containers)


def paused(cluster, _):
    return PausedPods(cluster, "pause:1")


@pytest.fixture(params=[frozen, paused])
def laws(request):
    def ground():
        fate = Fate()
        api, containers = Api(fate), FakeContainers(fate)
        containers.others.add("default/foreign")
        pods = request.param(api.cluster, containers)
        world = World(FakeClock(), None, containers, pods, None)
        return Ground(world, [api, containers], fate)

    return Laws(load(KIND.injector), ground, TARGET)


async def test_untouched_stays_untouched(laws):
    await laws.untouched_stays_untouched()


@pytest.mark.parametrize("live", [[], [A], [A, B]])
async def test_twice_is_once(laws, live):
    await laws.twice_is_once(live)


@pytest.mark.parametrize("lives", LIVES)
async def test_an_empty_list_gives_back_what_was_there(laws, lives):
    await laws.empty_gives_back_what_was_there(lives)


@pytest.mark.parametrize("lives", LIVES)
async def test_only_the_last_list_counts(laws, lives):
    await laws.only_the_last_counts(lives)


@pytest.mark.parametrize("lives", LIVES)
async def test_any_kill_is_survived(laws, lives):
    await laws.any_kill_is_survived(lives)


@pytest.mark.parametrize("lives", LIVES)
async def test_foreign_marks_are_left_alone(laws, lives):
    await laws.foreign_marks_are_left_alone(lives)
