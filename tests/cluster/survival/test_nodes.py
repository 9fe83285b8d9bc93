"""What Kubernetes itself consists of dies, or a node is cut off: faults end where they must."""

import logging
from datetime import UTC, datetime

import pytest

from testbed.cluster.waiting import until
from tests.cluster.survival.blows import agent, settle
from tests.cluster.survival.scene import (
    CUT_OFF_WITHIN,
    DELAY,
    GONE_WITHIN,
    LEASE_SECONDS,
    ON_NODES,
    PATIENCE,
    Scene,
)

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

HEALS_WITHIN = LEASE_SECONDS + 10
NOTICED_WITHIN = 60


@pytest.mark.parametrize("component", ["kubelet", "containerd"])
def test_faults_outlive_what_started_their_pods(scene: Scene, component: str) -> None:
    scene.inject()
    acting = scene.state()
    scene.cluster.kill(component, "node1")
    assert not scene.changed(acting)
    scene.cluster.start(component, "node1")
    settle(scene.cluster)
    assert not scene.changed(acting)
    assert scene.injected()


def test_a_fault_is_taken_back_without_a_kubelet(scene: Scene) -> None:
    scene.inject(ON_NODES)
    scene.cluster.kill("kubelet", "node1")
    try:
        assert scene.delete() < GONE_WITHIN
        scene.heals(10)
    finally:
        scene.cluster.start("kubelet", "node1")


@pytest.mark.parametrize("component", ["kube-apiserver", "etcd"])
def test_nodes_heal_themselves_while_there_is_no_api(scene: Scene, component: str) -> None:
    scene.inject(ON_NODES)
    scene.cluster.kill(component)
    try:
        until(
            "healing",
            lambda: not any(scene.in_kernel(n) for n in scene.cluster.nodes),
            HEALS_WITHIN,
        )
    finally:
        scene.cluster.start(component)
    until("the API", lambda: scene.kubectl("get", "pods"), PATIENCE)
    until("the truth", lambda: not scene.acting(), PATIENCE)
    for name in ON_NODES:
        assert "Interrupted" in scene.verdicts(name)


def test_an_api_that_is_back_soon_ends_nothing(scene: Scene) -> None:
    scene.inject()
    acting = scene.state()
    scene.cluster.kill("kube-apiserver")
    scene.cluster.start("kube-apiserver")
    until("the API", lambda: scene.kubectl("get", "pods"), PATIENCE)
    assert not scene.changed(acting)


def test_a_node_that_is_cut_off_heals_itself(scene: Scene) -> None:
    scene.inject(ON_NODES)
    scene.cluster.cut("node2")
    try:
        until("healing", lambda: not scene.in_kernel("node2"), HEALS_WITHIN)
        assert scene.in_kernel("node1"), "its controller is still there"
    finally:
        scene.cluster.mend("node2")
    settle(scene.cluster)
    for name in ON_NODES:
        until(f"{name} to tell", lambda name=name: "Interrupted" in scene.verdicts(name), 60)
        assert not scene.condition(name, "AllInjected")[0]


def test_a_fault_that_shall_hold_ends_at_its_deadline(scene: Scene) -> None:
    scene.inject({"delay": DELAY}, duration="30s", whenCutOff="hold")
    created = scene.experiment("delay")["metadata"]["creationTimestamp"]
    scene.cluster.cut("node2")
    try:
        until("the lease to run out", lambda: seconds_since(created) > 6 + HEALS_WITHIN, 60)
        assert scene.in_kernel("node2")
        until("the deadline", lambda: not scene.in_kernel("node2"), 30)
        assert seconds_since(created) > 29
    finally:
        scene.cluster.mend("node2")


def seconds_since(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def test_a_delete_waits_for_a_node_until_it_has_healed(scene: Scene) -> None:
    scene.inject(ON_NODES)
    scene.cluster.cut("node2")
    try:
        seconds = scene.delete()
        LOG.info("gone after %.1f s", seconds)
        assert seconds < CUT_OFF_WITHIN + 5
        assert not scene.in_kernel("node1")
        until("healing", lambda: not scene.in_kernel("node2"), HEALS_WITHIN)
        told = scene.kubectl("get", "events", "--output=jsonpath={.items[*].message}")
        assert f"{scene.namespace}/web-node2" in told
    finally:
        scene.cluster.mend("node2")


def test_a_node_that_is_drained_is_left_as_it_was(scene: Scene) -> None:
    scene.inject(ON_NODES)
    drained = agent(scene.cluster, "node2")
    options = ("--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=60s")
    selected = "--pod-selector=app.kubernetes.io/component=controller"
    scene.cluster.kubectl("drain", "node2", selected, *options)
    try:
        assert agent(scene.cluster, "node2") == drained
        until("a leader", lambda: scene.injected(tuple(ON_NODES)), PATIENCE)
        assert scene.in_kernel("node2")
    finally:
        scene.cluster.kubectl("uncordon", "node2")
