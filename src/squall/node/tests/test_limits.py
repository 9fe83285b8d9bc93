"""The policy of an installation, kept by the agent whatever a NodeFault says."""

import pytest

from squall.api.cluster import NAMESPACE, POD
from squall.api.policy import Policy
from squall.node.tests.bench import Bench

PROTECTED = Policy(protected_namespaces=["default"])
LABELLED = Policy(opt_in_labels={"chaos": "yes"})
ANNOTATED = Policy(opt_in_namespaces=True)
HALF = Policy(most_percent=50)


@pytest.fixture
async def bench(tmp_path):
    made = Bench(tmp_path)
    await made.renew()
    yield made
    await made.close()


async def label(bench, **labels):
    key = (POD, "default", "web")
    whole = bench.cluster.objects[key]
    metadata = whole["metadata"] | {"labels": labels}
    bench.cluster._store(key, whole | {"metadata": metadata}, "MODIFIED")
    await bench.rest()


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (PROTECTED, "default/web is in default, which this installation protects"),
        (Policy(target_namespace="shop"), "is outside of shop"),
        (LABELLED, "lacks the label chaos=yes"),
        (ANNOTATED, "is not annotated chaos-mesh.org/inject: enabled"),
        (HALF, "does not say how many pods it hits"),
    ],
    ids=["protected", "elsewhere", "unlabelled", "not annotated", "no extent"],
)
@pytest.mark.parametrize("one_shot", [False, True])
async def test_what_the_policy_forbids_is_refused_for_good_in_its_words(
    bench, policy, words, one_shot
):
    bench.policy = policy
    await bench.pod()
    await bench.start()
    await bench.fault(oneShot=one_shot)
    assert bench.colors() == []
    assert words in bench.record()["message"]
    assert bench.record()["final"]


async def test_what_the_policy_allows_is_injected(bench):
    bench.policy = Policy(
        protected_namespaces=["kube-system"],
        opt_in_namespaces=True,
        opt_in_labels={"chaos": "yes"},
        most_percent=50,
    )
    annotations = {"chaos-mesh.org/inject": "enabled"}
    await bench.cluster.create(
        NAMESPACE, {"metadata": {"name": "default", "annotations": annotations}}
    )
    await bench.pod()
    await label(bench, chaos="yes")
    await bench.start()
    await bench.fault(extent={".": {"hit": 1, "of": 2}})
    assert bench.colors() == ["red"]


async def test_too_large_a_share_is_refused(bench):
    bench.policy = HALF
    await bench.pod()
    await bench.start()
    await bench.fault(extent={".": {"hit": 2, "of": 3}})
    assert "would hit 2 of 3 pods; this installation allows 50 %" in bench.record()["message"]


async def test_a_container_of_another_pod_is_not_hit_under_the_name_of_an_allowed_one(bench):
    bench.policy = PROTECTED.model_copy(update={"protected_namespaces": ["kube-system"]})
    await bench.pod()
    bench.processes.running["system-1"] = (7, 1)
    bench.walls.pids.add(7)
    await bench.start()
    await bench.fault(targets=[bench.target(containerId="squall://system-1")])
    assert bench.colors() == []
    assert "sees no such container" in bench.record()["message"]


async def test_a_pod_that_is_seen_later_than_its_fault_is_waited_for(bench):
    bench.policy = Policy(protected_namespaces=["kube-system"])
    await bench.pod()
    whole = bench.cluster.objects.pop((POD, "default", "web"))
    await bench.start()
    uid = whole["metadata"]["uid"]
    await bench.fault(targets=[bench.target(podUid=uid)])
    assert "sees no such pod" in bench.record()["message"]
    assert not bench.record()["final"]
    bench.cluster._store((POD, "default", "web"), whole, "ADDED")
    await bench.rest()
    assert bench.colors() == ["red"]


async def test_a_stricter_policy_takes_back_what_acts_and_says_why(bench):
    await bench.pod()
    await bench.start()
    await bench.fault()
    assert bench.colors() == ["red"]
    await bench.kill()
    bench.policy = PROTECTED
    await bench.start()
    assert bench.colors() == []
    assert bench.record()["phase"] == "Not Injected"
    assert "protects" in bench.record()["message"]


async def test_a_policy_keeps_nothing_from_being_taken_back(bench):
    await bench.pod()
    await bench.start()
    await bench.fault()
    await bench.kill()
    bench.policy = PROTECTED
    await bench.change(desiredPhase="Stop")
    await bench.start()
    assert bench.colors() == []
    assert bench.record()["phase"] == "Not Injected"
    assert bench.record()["message"] == ""
