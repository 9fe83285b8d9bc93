"""The status of a local Pod, as clients read it."""

from dataclasses import replace

import pytest

from squall.kubernetes.embedded.pods_status import HELD_DOWN, Host, local_status
from squall.kubernetes.embedded.pods_step import new_pod
from squall.node.sandboxes import Ended, PodName, Sandbox

NOW = 1_800_000_000.0
HOST = Host("laptop", ("192.0.2.1", "2001:db8::1"))
WEB = PodName("default", "web")
WORKLOAD = {
    "metadata": {"name": "web", "namespace": "default", "uid": "w-1"},
    "spec": {"command": ["serve"]},
}
A, B = "a" * 64, "b" * 64
RUNNING = Sandbox(A, WEB, "p-1", 100, 7, NOW - 60)


def pod(**annotations):
    made = new_pod(WORKLOAD, HOST)
    made["metadata"]["annotations"] |= {k.replace("__", "/"): v for k, v in annotations.items()}
    return made


def status(stored, *containers, restarts=True, now=NOW):
    return local_status(stored, containers, ["10.0.0.2", "fd00::2"], HOST, now, restarts=restarts)


def conditions(found):
    return {each["type"]: each["status"] for each in found["conditions"]}


def test_a_running_pod_is_ready_in_every_word_that_clients_read():
    found = status(pod(), RUNNING)
    assert found["phase"] == "Running"
    assert set(conditions(found).values()) == {"True"}
    assert set(conditions(found)) == {"Initialized", "Ready", "ContainersReady", "PodScheduled"}
    assert (found["podIP"], found["podIPs"][1]["ip"]) == ("10.0.0.2", "fd00::2")
    assert (found["hostIP"], found["startTime"]) == ("192.0.2.1", "2027-01-15T08:00:00Z")
    (container,) = found["containerStatuses"]
    assert container["containerID"] == f"squall://{A}"
    assert container["state"] == {"running": {"startedAt": "2027-01-15T07:59:00Z"}}
    assert (container["ready"], container["started"], container["restartCount"]) == (True, True, 0)


def test_a_restart_is_counted_once_however_often_it_is_told():
    before = pod() | {"status": status(pod(), RUNNING)}
    ended = replace(RUNNING, ended=Ended(137, NOW))
    restarted = status(before, ended, replace(RUNNING, id=B, at=NOW))
    (container,) = restarted["containerStatuses"]
    assert container["restartCount"] == 1
    assert container["lastState"]["terminated"]["exitCode"] == 137
    again = status(before | {"status": restarted}, replace(RUNNING, id=B, at=NOW))
    assert again["containerStatuses"] == [container]


def test_a_container_that_vanished_with_its_host_counts_as_killed():
    before = pod() | {"status": status(pod(), RUNNING)}
    (container,) = status(before, replace(RUNNING, id=B, at=NOW))["containerStatuses"]
    assert container["restartCount"] == 1
    assert container["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"


def test_a_pod_that_is_held_down_is_running_and_not_ready():
    found = status(pod(**{HELD_DOWN: "true"}), RUNNING)
    assert found["phase"] == "Running"
    assert conditions(found)["Ready"] == conditions(found)["ContainersReady"] == "False"
    assert {c.get("reason") for c in found["conditions"] if c["status"] == "False"} == {"HeldDown"}
    assert found["containerStatuses"][0]["ready"] is False


def test_a_condition_keeps_its_moment_until_it_changes():
    first = status(pod(), RUNNING)
    later = status(pod() | {"status": first}, RUNNING, now=NOW + 60)
    assert later == first
    held = status(pod(**{HELD_DOWN: "true"}) | {"status": first}, RUNNING, now=NOW + 60)
    moments = {each["type"]: each["lastTransitionTime"] for each in held["conditions"]}
    assert moments["Ready"] == "2027-01-15T08:01:00Z"
    assert moments["PodScheduled"] == "2027-01-15T08:00:00Z"


@pytest.mark.parametrize(
    ("ended", "restarts", "phase", "reason"),
    [
        (Ended(0, NOW), False, "Succeeded", "Completed"),
        (Ended(3, NOW), False, "Failed", "Error"),
        (Ended(137, NOW, oom_killed=True), False, "Failed", "OOMKilled"),
        (Ended(1, NOW), True, "Running", "CrashLoopBackOff"),
    ],
)
def test_an_end_has_the_reason_a_kubelet_gives(ended, restarts, phase, reason):
    found = status(pod(), replace(RUNNING, ended=ended), restarts=restarts)
    (container,) = found["containerStatuses"]
    (state,) = container["state"].values()
    assert (found["phase"], state["reason"]) == (phase, reason)
    assert conditions(found)["Ready"] == "False"


def test_a_program_that_does_not_exist_says_so():
    failed = Sandbox(A, WEB, "p-1", ended=Ended(127, NOW, "nosuch: No such file or directory"))
    (container,) = status(pod(), failed, restarts=False)["containerStatuses"]
    assert container["state"]["terminated"]["reason"] == "StartError"
    assert "No such file" in container["state"]["terminated"]["message"]
