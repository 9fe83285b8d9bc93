"""The laws of the pod and stress rooms, on this kernel."""

import os
from dataclasses import dataclass
from typing import Any

import pytest

from squall.faults import kinds
from squall.injection.contract import Live
from squall.injection.kind import load
from squall.injection.laws import Ground, Laws
from squall.injection.world import World
from squall.injection.world.fake_pods import FakePods
from squall.linux.clock import SystemClock
from squall.linux.containers import LinuxContainers
from squall.linux.processes import started
from squall.linux.stressors import LinuxStressors, _runs

from .cell import Cell, cell, state

pytestmark = [pytest.mark.host, pytest.mark.kernel]

CLOCK = SystemClock()
FOREIGN_MARK = "trusted.somebody.else"
FAULTS: dict[str, list[dict[str, Any]]] = {
    "PodChaos": [{"action": "pod-failure"}, {"action": "pod-failure"}],
    "StressChaos": [
        {"cpu": {"workers": 1, "load": 10}},
        {"cpu": {"workers": 2, "load": 5}, "memory": {"workers": 1, "size": "32MB"}},
    ],
}


class FrozenPods(FakePods):
    """Pods that stand still as those of an agent on their node do: their processes are frozen."""

    def __init__(self, containers: LinuxContainers) -> None:
        super().__init__()
        self._containers = containers

    async def stop(self, target):
        await self._containers.freeze(target)
        await super().stop(target)

    async def let_go(self, target):
        await self._containers.thaw(target)
        await super().let_go(target)


@dataclass
class RealPart:
    """A container as it is: switches of its cgroups, and who runs in them."""

    container: Cell
    stranger: int

    def snapshot(self):
        switches = [
            (path / name).read_text()
            for path in self.container.cgroups
            for name in ("freezer.state", "cgroup.freeze")
            if (path / name).exists()
        ]
        runs = sorted((run.stressor for run in _runs(self.container.target)), key=str)
        return [switches, runs, [state(one.pid) == "T" for one in self.container.processes]]

    def foreign(self):
        marks = [os.getxattr(path, FOREIGN_MARK) for path in self.container.cgroups]
        return [started(self.stranger), marks]


@pytest.fixture(params=FAULTS)
def laws(request):
    with cell() as container:
        stranger = container.add("sleep", "600")
        for path in container.cgroups:
            os.setxattr(path, FOREIGN_MARK, b"1")
        pods = FrozenPods(LinuxContainers())
        world = World(CLOCK, None, LinuxContainers(), pods, LinuxStressors(CLOCK))
        kind = kinds()[request.param]
        yield Laws(
            load(kind.injector),
            lambda: Ground(world, [RealPart(container, stranger), pods]),
            container.target,
        )


@pytest.fixture
def lives(request):
    kind = request.node.callspec.params["laws"]
    first, second = [kinds()[kind].fault.model_validate(fault) for fault in FAULTS[kind]]
    a, b = Live("a/.", first), Live("b/.", second)
    return [[a], [a, b], [b]]


async def test_untouched_stays_untouched(laws):
    await laws.untouched_stays_untouched()


async def test_twice_is_once(laws, lives):
    await laws.twice_is_once(lives[1])


async def test_an_empty_list_gives_back_what_was_there(laws, lives):
    await laws.empty_gives_back_what_was_there(lives)


async def test_only_the_last_list_counts(laws, lives):
    await laws.only_the_last_counts(lives)


async def test_foreign_marks_are_left_alone(laws, lives):
    await laws.foreign_marks_are_left_alone(lives)
