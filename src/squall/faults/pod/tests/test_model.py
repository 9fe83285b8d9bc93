import pytest

from squall.faults.pod import KIND
from squall.faults.pod.model import PodChaosSpec, PodFault, by_api, one_shot, per_container, share
from squall.injection.served import served_kinds

SERVED = served_kinds({"PodChaos": KIND})[0]
SELECTOR = {"selector": {}, "mode": "one"}


def refused(**fields):
    obj = {"metadata": {"namespace": "d"}, "spec": {**SELECTOR, **fields}}
    return [str(cause) for cause in SERVED.validate(SERVED.default(obj), None)]


@pytest.mark.parametrize(
    ("action", "struck_once", "by_container"),
    [("pod-kill", True, False), ("pod-failure", False, False), ("container-kill", True, True)],
)
def test_kills_strike_once_and_only_container_kill_hits_containers(
    action, struck_once, by_container
):
    spec = PodChaosSpec.model_validate({**SELECTOR, "action": action, "containerNames": ["a"]})
    assert one_shot(spec) is struck_once
    assert per_container(spec) is by_container


@pytest.mark.parametrize(
    ("action", "alone"), [("pod-kill", True), ("pod-failure", True), ("container-kill", False)]
)
def test_only_container_kill_needs_somebody_on_the_node(action, alone):
    spec = PodChaosSpec.model_validate({**SELECTOR, "action": action, "containerNames": ["a"]})
    assert by_api(spec) is alone
    assert KIND.by_api is by_api


def test_every_target_is_told_the_action_and_its_grace():
    spec = PodChaosSpec.model_validate({**SELECTOR, "action": "pod-kill", "gracePeriod": 7})
    fault = share(spec, ".", {})
    assert fault == PodFault(action="pod-kill", grace_period=7)
    assert PodFault.model_validate(fault.model_dump(mode="json", by_alias=True)) == fault


def test_container_kill_must_be_told_which():
    assert refused(action="container-kill") == [
        (
            "spec.containerNames: Required value: "
            "the name of container is empty on container-kill action"
        )
    ]
    assert refused(action="container-kill", containerNames=["app"]) == []


def test_an_unknown_action_and_a_negative_grace_are_both_named():
    assert [text.partition(":")[0] for text in refused(action="nap", gracePeriod=-1)] == [
        "spec.action",
        "spec.gracePeriod",
    ]
