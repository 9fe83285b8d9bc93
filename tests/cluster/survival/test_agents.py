"""Agents die, with their process or with their pod: faults go on, or are taken back."""

import pytest

from testbed.cluster.waiting import until
from tests.cluster.survival.blows import agent, kill, kill_agents, replace
from tests.cluster.survival.scene import LEASE_SECONDS, ON_NODES, PATIENCE, Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_faults_outlive_an_agent_that_comes_back(scene: Scene) -> None:
    scene.inject()
    acting = scene.state()
    scene.outlives(kill_agents(scene.cluster), acting)


def test_the_watcher_heals_where_an_agent_stays_away(scene: Scene) -> None:
    scene.inject()
    victim = agent(scene.cluster, "node1")
    for _ in range(2):  # from the second time on, the kubelet waits longer than a lease
        assert scene.in_kernel("node1")
        kill(scene.cluster, victim)
    until("the watcher", lambda: not scene.in_kernel("node1"), LEASE_SECONDS + 10)
    assert scene.in_kernel("node2")
    ready = ("--for=condition=Ready", f"--timeout={PATIENCE:.0f}s")  # kubectl's own: 30 s
    scene.cluster.kubectl("wait", "pod", victim, "-n=squall", *ready)
    for name in ON_NODES:  # its faults were taken back early, and are not begun again by themselves
        until(f"{name} to tell", lambda name=name: "Interrupted" in scene.verdicts(name), PATIENCE)
        assert not scene.condition(name, "AllInjected")[0]


def test_faults_come_back_with_an_agent_that_was_told_to_go(scene: Scene) -> None:
    scene.inject()
    replace(scene.cluster, agent(scene.cluster, "node1"))
    until("faults to be back", lambda: scene.in_kernel("node1") and scene.injected(), PATIENCE)
