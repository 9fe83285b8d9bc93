"""Controllers die, are stopped, come back, and are more than one."""

import json
import logging
import operator
from collections.abc import Iterator

import pytest

from testbed.cluster.waiting import until
from tests.cluster.survival.blows import (
    agent,
    kill,
    leader,
    pods,
    process,
    rob,
    rolled_out,
    scale,
    settle,
    takeover,
)
from tests.cluster.survival.scene import (
    DELAY,
    GONE_WITHIN,
    LEASE_SECONDS,
    ON_NODES,
    PATIENCE,
    Fault,
    Scene,
)

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

LEADS_WITHIN = 5.0
MANY = 20


def test_another_leads_when_the_leader_dies(scene: Scene) -> None:
    scene.inject()
    acting = scene.state()
    old = leader(scene.cluster)
    kill(scene.cluster, old)
    seconds = takeover(scene.cluster, old)
    LOG.info("another led after %.1f s", seconds)
    assert seconds <= LEADS_WITHIN
    assert not scene.changed(acting)
    assert scene.injected()


def test_faults_are_true_when_both_controllers_die(scene: Scene) -> None:
    scene.inject()
    old = leader(scene.cluster)
    kill(scene.cluster, *pods(scene.cluster, "controller"))
    until("a renewal", lambda: renewed_since(scene, old), PATIENCE)
    settle(scene.cluster)
    until("the truth", scene.tells_truly, PATIENCE)


def renewed_since(scene: Scene, old: str) -> bool:
    """Has the lease been taken by one who has not just died?"""
    kubectl = scene.cluster.kubectl
    read = kubectl("get", "lease", "squall-controller", "-n=squall", "--output=json")
    spec = json.loads(read)["spec"]
    return bool(spec["holderIdentity"]) and process(scene.cluster, spec["holderIdentity"]).alive


def test_nodes_heal_themselves_when_no_controller_comes_back(scene: Scene) -> None:
    scene.inject(ON_NODES)
    scale(scene.cluster, 0)
    scene.heals(LEASE_SECONDS + 10)
    scale(scene.cluster, 2)
    settle(scene.cluster)
    for name in ON_NODES:
        until(f"{name} to say so", lambda name=name: "Interrupted" in scene.verdicts(name), 60)
        assert not scene.condition(name, "AllInjected")[0]


def test_a_halt_needs_no_controller(scene: Scene) -> None:
    scene.inject(ON_NODES)
    scale(scene.cluster, 0)
    assert scene.left(), "they healed before anybody asked"
    halt = {"apiVersion": "squall.dev/v1alpha1", "kind": "Halt", "metadata": {"name": "stop"}}
    scene.cluster.kubectl("create", "-f=-", stdin=json.dumps({**halt, "spec": {"reason": "test"}}))
    LOG.info("halted after %.1f s", scene.heals(5.0))
    scale(scene.cluster, 2)
    rolled_out(scene.cluster)
    scene.begin({"late": DELAY})
    until("a refusal", lambda: "test" in scene.condition("late", "AllInjected")[1], PATIENCE)
    assert not scene.left()
    scene.cluster.kubectl("delete", "halt", "stop")
    scene.inject({"later": DELAY})


@pytest.fixture
def many(scene: Scene) -> Iterator[dict[str, Fault]]:
    """Twenty more pods, and a fault for all of them."""
    for number in range(MANY):
        scene.start(f"many-{number}", "many", scene.cluster.nodes[number % 2])
    scene.wait("pod", "--selector=app=many", "condition=Ready")
    selector = {"labelSelectors": {"app": "many"}}
    spec = {"action": "loss", "loss": {"loss": "50"}, "mode": "all", "selector": selector}
    yield {"many": ("NetworkChaos", spec)}
    scene.delete()
    scene.kubectl("delete", "pod", "--selector=app=many")


def test_what_a_dead_leader_began_another_ends(scene: Scene, many: dict[str, Fault]) -> None:
    before = scene.state()
    scene.begin(many)
    old = leader(scene.cluster)
    kill(scene.cluster, old)
    LOG.info("another led after %.1f s", takeover(scene.cluster, old))
    scene.wait("networkchaos", "many", "condition=AllInjected")
    acting = scene.changed(before)
    assert all(f"many-{number}/main devices" in acting for number in range(MANY))
    records = scene.experiment("many")["status"]["experiment"]["containerRecords"]
    assert len({record["id"] for record in records}) == len(records) == MANY
    rolled_out(scene.cluster)  # both of them, or the next blow would hit the only one

    scene.kubectl("delete", "networkchaos", "many", "--wait=false")
    kill(scene.cluster, leader(scene.cluster))
    scene.wait("networkchaos", "many", "delete", GONE_WITHIN)
    until("healing", lambda: not scene.changed(before), 10)


def test_a_leader_robbed_of_its_lease_does_no_harm(scene: Scene) -> None:
    scene.inject()
    acting = scene.state()
    for _ in range(3):
        rob(scene.cluster)
    assert not scene.changed(acting)
    assert scene.injected()


def test_a_pod_is_struck_once_while_leaders_change(scene: Scene) -> None:
    before = restarts(scene)
    spec = {
        "action": "container-kill",
        "containerNames": ["main"],
        "mode": "all",
        "selector": {"labelSelectors": {"app": "web"}},
    }
    scene.begin({"kill": ("PodChaos", spec)})
    kill(scene.cluster, leader(scene.cluster))
    scene.wait("podchaos", "kill", "condition=AllInjected")
    once = [count + 1 for count in before]
    # The kubelet tells of a restart some time after it.
    until("restarts", lambda: all(map(operator.ge, restarts(scene), once)), PATIENCE)
    rolled_out(scene.cluster)
    assert scene.delete() < GONE_WITHIN  # whoever leads has nothing left to do
    assert restarts(scene) == once


def restarts(scene: Scene) -> list[int]:
    counts = "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}"
    return list(map(int, scene.kubectl("get", "pods", "--selector=app=web", counts).split()))


def test_dead_at_once_agent_and_leader(scene: Scene) -> None:
    scene.inject(ON_NODES)
    kill(
        scene.cluster,
        leader(scene.cluster),
        *(agent(scene.cluster, n) for n in scene.cluster.nodes),
    )
    assert scene.delete() < GONE_WITHIN
