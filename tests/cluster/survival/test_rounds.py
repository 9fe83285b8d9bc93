"""Every way of dying that there is time for in `make test`, several in one round.

The other files of this folder hit each part alone, and with faults of all kinds.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from testbed.cluster import Cluster
from testbed.cluster.waiting import until
from tests.cluster.survival.blows import kill, kill_agents, leader, rob, settle, takeover
from tests.cluster.survival.scene import (
    CUT_OFF_WITHIN,
    DELAY,
    FILES,
    GONE_WITHIN,
    HTTP,
    LEASE_SECONDS,
    NAMES,
    PARTITION,
    PATIENCE,
    STRESS,
    Fault,
    Scene,
)

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.cluster, pytest.mark.core, pytest.mark.timeout(400)]

HOLDS_SECONDS = 25
"""Duration of what shall hold; a lease, and what is read before and after it, fit into it."""


def leader_dies(cluster: Cluster) -> None:
    old = leader(cluster)
    kill(cluster, old)
    LOG.info("another led after %.1f s", takeover(cluster, old))


def kubelet_dies(cluster: Cluster) -> None:
    cluster.kill("kubelet", "node1")
    cluster.start("kubelet", "node1")


def containerd_dies(cluster: Cluster) -> None:
    cluster.kill("containerd", "node2")
    cluster.start("containerd", "node2")


BLOWS: tuple[Callable[[Cluster], None], ...] = (rob, kubelet_dies, containerd_dies, leader_dies)


def test_faults_outlive_those_who_come_back(scene: Scene) -> None:
    scene.inject()
    acting = scene.state()
    for blow in BLOWS:
        blow(scene.cluster)
        scene.outlives(0, acting)
    settle(scene.cluster)
    scene.outlives(kill_agents(scene.cluster), acting)


@pytest.mark.parametrize(
    ("component", "faults"),
    [
        ("kube-apiserver", {"partition": PARTITION, "files": FILES, "names": NAMES}),
        ("etcd", {"delay": DELAY, "http": HTTP, "stress": STRESS}),
    ],
)
def test_nodes_heal_themselves_while_there_is_no_api(
    scene: Scene, component: str, faults: dict[str, Fault]
) -> None:
    scene.inject(faults)
    scene.cluster.kill(component)
    try:
        until("healing", lambda: not any(map(scene.in_kernel, scene.cluster.nodes)), CUT_OFF_WITHIN)
    finally:
        scene.cluster.start(component)
    until("the API", lambda: scene.kubectl("get", "pods"), PATIENCE)
    until("the truth", lambda: not scene.acting(), PATIENCE)
    for name in faults:
        assert "Interrupted" in scene.verdicts(name)


def test_a_node_that_is_cut_off_heals_itself_but_for_what_shall_hold(scene: Scene) -> None:
    ends = {"http": HTTP, "files": FILES, "stress": STRESS}
    scene.inject(ends)
    before = scene.in_kernel("node2")
    scene.inject({"names": NAMES}, duration=f"{HOLDS_SECONDS}s", whenCutOff="hold")
    created = scene.experiment("names")["metadata"]["creationTimestamp"]
    scene.cluster.cut("node2")
    try:
        for mark in ("squall-node http", "squall-node files", "stress-ng", "its files"):
            assert mark in before
            until(f"the end of {mark}", lambda mark=mark: mark not in held(scene), CUT_OFF_WITHIN)
        if seconds_since(created) < HOLDS_SECONDS - 1:
            assert "squall_dns" in held(scene)
        until("the deadline", lambda: not held(scene), HOLDS_SECONDS + 10)
        assert seconds_since(created) > HOLDS_SECONDS - 1
        assert scene.in_kernel("node1"), "its controller is still there"
    finally:
        scene.cluster.mend("node2")
    settle(scene.cluster)
    for name in ends:
        until(f"{name} to tell", lambda name=name: "Interrupted" in scene.verdicts(name), PATIENCE)
    assert not scene.acting()


def held(scene: Scene) -> str:
    return scene.in_kernel("node2")


def seconds_since(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def test_targets_are_restarted_deleted_evicted_and_go_with_their_namespace(doomed: Scene) -> None:
    doomed.inject()
    kill_one = {
        "action": "container-kill",
        "containerNames": ["main"],
        "mode": "all",
        "selector": {"fieldSelectors": {"metadata.name": "web-node1"}},
    }
    doomed.inject({"kill": ("PodChaos", kill_one)})
    doomed.kubectl("delete", "pod", "down-node1", f"--timeout={GONE_WITHIN:.0f}s")
    doomed.evict("web-node2")
    doomed.cluster.kubectl("delete", "namespace", doomed.namespace, f"--timeout={PATIENCE:.0f}s")
    doomed.leaves_nothing(LEASE_SECONDS + PATIENCE)
