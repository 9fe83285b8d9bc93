"""Targets go, or start again: nothing is left of their faults, and nothing waits for them."""

import pytest

from testbed.cluster.waiting import until
from tests.cluster.survival.scene import ALL, GONE_WITHIN, ON_NODES, PATIENCE, Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

KILLS = 10


def test_a_target_is_deleted_and_another_evicted(doomed: Scene) -> None:
    doomed.inject()
    doomed.kubectl("delete", "pod", "web-node1", "down-node1", "--timeout=30s")
    doomed.evict("web-node2", "down-node2")
    assert doomed.delete() < GONE_WITHIN
    doomed.leaves_nothing()


def test_a_pod_of_the_same_name_is_another_one(doomed: Scene) -> None:
    doomed.inject()
    doomed.kubectl("delete", "pod", "web-node1", "--timeout=30s")
    doomed.start("web-node1", "web", "node1")
    doomed.wait("pod", "web-node1", "condition=Ready")
    untouched = {
        key: v
        for key, v in doomed.before.items()
        if "/web-node1/" in key and "addresses" not in key
    }
    now = doomed.state()
    assert {key: now[key] for key in untouched} == untouched
    assert doomed.delete() < GONE_WITHIN
    doomed.leaves_nothing()


def test_targets_are_killed_by_ten_experiments(doomed: Scene) -> None:
    doomed.inject(ON_NODES)
    for number in range(KILLS):
        spec = {
            "action": "container-kill",
            "containerNames": ["main"],
            "mode": "all",
            "selector": {"labelSelectors": {"app": "web"}},
        }
        doomed.begin({f"kill-{number}": ("PodChaos", spec)})
    doomed.wait("podchaos", "kill-0", "condition=AllInjected")
    assert doomed.delete() < GONE_WITHIN
    doomed.wait("pod", "--all", "condition=Ready", 120)
    doomed.heals()


def test_a_namespace_goes_while_faults_act_in_it(doomed: Scene) -> None:
    doomed.inject(ALL)
    doomed.cluster.kubectl("delete", "namespace", doomed.namespace, f"--timeout={PATIENCE:.0f}s")
    doomed.leaves_nothing()


def test_a_namespace_goes_while_faults_begin_in_it(doomed: Scene) -> None:
    doomed.begin(ALL)
    doomed.cluster.kubectl("delete", "namespace", doomed.namespace, f"--timeout={PATIENCE:.0f}s")
    until("everything to be gone", lambda: not doomed.node_faults(), GONE_WITHIN)
    doomed.leaves_nothing()
