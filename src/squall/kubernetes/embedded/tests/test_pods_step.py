"""What one workload needs next, decided from facts alone."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.kubernetes.embedded.pods_status import Host, local_status
from squall.kubernetes.embedded.pods_step import (
    Attach,
    CreatePod,
    Decision,
    DeletePod,
    Detach,
    Facts,
    Remove,
    Start,
    Terminate,
    back_off,
    new_pod,
    next_streak,
    step,
)
from squall.node.sandboxes import Ended, PodName, Sandbox

NOW = 1_800_000_000.0
HOST = Host("laptop", ("192.0.2.1",))
WEB = PodName("default", "web")
WORKLOAD = {
    "metadata": {"name": "web", "namespace": "default", "uid": "w-1", "generation": 1},
    "spec": {"command": ["serve"], "labels": {"app": "web"}, "env": {"PORT": "80"}},
}
POD = new_pod(WORKLOAD, HOST)
POD["metadata"] |= {"uid": "p-1"}
A, B = "a" * 64, "b" * 64
RUNNING = Sandbox(A, WEB, "p-1", 100, 7, NOW - 60)
KILLED = replace(RUNNING, ended=Ended(137, NOW))
FACTS = Facts(WEB, HOST, WORKLOAD, POD, (RUNNING,), attached=True)


def told(facts, now=NOW):
    """The same facts, once the Pod's status says how its containers stand."""
    restarts = facts.pod["spec"]["restartPolicy"] == "Always"
    status = local_status(facts.pod, facts.containers, ["10.0.0.2"], HOST, now, restarts=restarts)
    return replace(facts, pod=facts.pod | {"status": status})


def deleted(pod, grace):
    return pod | {
        "metadata": pod["metadata"]
        | {"deletionTimestamp": "2027-01-15T08:00:00Z", "deletionGracePeriodSeconds": grace}
    }


def finalized(pod):
    return pod | {"metadata": pod["metadata"] | {"finalizers": ["example.com/hold"]}}


def with_policy(policy):
    return POD | {"spec": POD["spec"] | {"restartPolicy": policy}}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(
            Facts(WEB, HOST, WORKLOAD),
            Decision((CreatePod(new_pod(WORKLOAD, HOST)),)),
            id="a workload without a pod gets one",
        ),
        pytest.param(
            Facts(WEB, HOST, WORKLOAD, POD),
            Decision((Attach(),)),
            id="a new pod gets its network first",
        ),
        pytest.param(
            replace(FACTS, containers=()),
            Decision((Start(),)),
            id="an attached pod gets its container",
        ),
        pytest.param(FACTS, Decision(report=True), id="a running container is told of"),
        pytest.param(
            replace(told(FACTS), containers=(KILLED,)),
            Decision((Start(),), restarts=True),
            id="the first restart is at once",
        ),
        pytest.param(
            replace(told(FACTS), containers=(replace(KILLED, at=NOW - 9),), streak=1),
            Decision(report=True, restarts=True, wait_seconds=0.5),
            id="a container that failed again soon waits a little",
        ),
        pytest.param(
            replace(told(FACTS), containers=(KILLED, replace(RUNNING, id=B, at=NOW))),
            Decision(report=True),
            id="the last one is kept until the status names its successor",
        ),
        pytest.param(
            told(replace(FACTS, containers=(KILLED, replace(RUNNING, id=B, at=NOW)))),
            Decision((Remove(A),), report=True),
            id="then it is removed",
        ),
        pytest.param(
            replace(FACTS, pod=with_policy("Never"), containers=(KILLED,)),
            Decision(report=True),
            id="what shall never restart stays ended",
        ),
        pytest.param(
            replace(
                FACTS,
                pod=with_policy("OnFailure"),
                containers=(replace(RUNNING, ended=Ended(0, NOW)),),
            ),
            Decision(report=True),
            id="a success is not restarted on failure",
        ),
        pytest.param(
            replace(FACTS, pod=deleted(POD, 30)),
            Decision((Terminate(A),)),
            id="a deleted pod is asked to end",
        ),
        pytest.param(
            replace(FACTS, pod=deleted(POD, 30), asked_to_end_at=NOW - 10),
            Decision(wait_seconds=20),
            id="and given its grace period",
        ),
        pytest.param(
            replace(FACTS, pod=deleted(POD, 30), asked_to_end_at=NOW - 30),
            Decision((Remove(A),)),
            id="and killed after it",
        ),
        pytest.param(
            replace(FACTS, pod=deleted(POD, 30), containers=(KILLED,)),
            Decision((Remove(A), DeletePod("p-1", now=True))),
            id="and forgotten once it has ended",
        ),
        pytest.param(
            replace(FACTS, pod=deleted(POD, 0)),
            Decision((Remove(A),)),
            id="without grace it is killed at once",
        ),
        pytest.param(
            replace(FACTS, pod=finalized(deleted(POD, 0)), containers=()),
            Decision(),
            id="a pod that a finalizer holds is waited for",
        ),
        pytest.param(
            replace(FACTS, pod=None),
            Decision((Remove(A),)),
            id="a container whose pod is gone is removed before a new pod comes",
        ),
        pytest.param(
            replace(FACTS, workload=None),
            Decision((DeletePod("p-1", now=False),)),
            id="a pod whose workload is gone is deleted",
        ),
        pytest.param(
            replace(FACTS, workload=WORKLOAD | {"metadata": WORKLOAD["metadata"] | {"uid": "w-2"}}),
            Decision((DeletePod("p-1", now=False),)),
            id="a pod of an earlier workload with the same name is deleted",
        ),
        pytest.param(
            replace(
                FACTS, workload=WORKLOAD | {"metadata": WORKLOAD["metadata"] | {"generation": 2}}
            ),
            Decision((DeletePod("p-1", now=False),)),
            id="a changed workload gets a new pod",
        ),
        pytest.param(
            Facts(WEB, HOST, attached=True),
            Decision((Detach(),)),
            id="the network goes last",
        ),
        pytest.param(Facts(WEB, HOST), Decision(), id="then nothing is left to do"),
    ],
)
def test_the_next_move(facts, expected):
    assert step(facts, NOW) == expected


def test_back_off_grows_and_has_an_end():
    delays = [back_off(streak) for streak in range(1, 12)]
    assert delays == sorted(delays)
    assert delays[:3] == [0.0, 0.5, 1.0]
    assert delays[-1] == 10.0


def test_a_steady_container_begins_a_new_streak():
    steady = replace(RUNNING, at=NOW - 10, ended=Ended(1, NOW))
    hasty = replace(RUNNING, at=NOW - 9, ended=Ended(1, NOW))
    assert (next_streak(5, steady), next_streak(5, hasty)) == (1, 6)


_SANDBOXES = st.lists(
    st.builds(
        lambda id_, uid, at, end: Sandbox(id_, WEB, uid, 1, 1, NOW - at, end),
        st.sampled_from([A, B]),
        st.sampled_from(["p-1", "p-0"]),
        st.integers(0, 100),
        st.none() | st.builds(Ended, st.sampled_from([0, 1, 137]), st.just(NOW)),
    ),
    max_size=2,
    unique_by=lambda each: each.id,
)


@given(
    workload=st.none() | st.just(WORKLOAD),
    pod=st.none() | st.sampled_from([POD, deleted(POD, 0), deleted(POD, 30)]),
    containers=_SANDBOXES,
    attached=st.booleans(),
    streak=st.integers(0, 9),
)
def test_nothing_is_ever_started_beside_a_running_container(
    workload, pod, containers, attached, streak
):
    ordered = tuple(sorted(containers, key=lambda each: each.at))
    facts = Facts(WEB, HOST, workload, pod, ordered, attached=attached, streak=streak)
    decision = step(facts, NOW)
    if Start() in decision.moves:
        assert attached
        assert ordered == () or ordered[-1].ended
        assert all(each.pod_uid == pod["metadata"]["uid"] for each in ordered)
    if Detach() in decision.moves:
        assert not ordered
