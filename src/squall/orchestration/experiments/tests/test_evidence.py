from dataclasses import replace
from datetime import UTC, datetime

import pytest

from squall.api.node_fault import NodeFaultSpec, NodeFaultStatus
from squall.orchestration.experiments.endings import emptied, taken_back
from squall.orchestration.experiments.evidence import Evidence, reports, unassigned
from squall.orchestration.experiments.facts import Assigned

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = (".", "default/a")


def assigned(phase, *, observed=2, incarnation=1, said=1, final=False, wanted="Stop", listed=True):
    target = {"id": "default/a", "selectorKey": ".", "podUid": "u", "incarnation": incarnation}
    spec = NodeFaultSpec.model_validate(
        {
            "nodeName": "n1",
            "experiment": {"kind": "K", "namespace": "n", "name": "x", "uid": "u", "created": NOW},
            "desiredPhase": wanted,
            "faults": {},
            "targets": [target] if listed else [],
        }
    )
    record = {"id": "default/a", "selectorKey": ".", "phase": phase, "incarnation": said}
    status = {"observedGeneration": observed, "targets": [record | {"final": final}]}
    return Assigned("f", 2, NOW, spec, NodeFaultStatus.model_validate(status if phase else {}))


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (assigned(""), Evidence.NONE),
        (assigned("Injected"), Evidence.INJECTED),
        (assigned("Injected", observed=1), Evidence.INJECTED),
        (assigned("Injected", said=0), Evidence.NONE),
        (assigned("Not Injected"), Evidence.CLEAN),
        (assigned("Not Injected", observed=1), Evidence.NONE),
        (assigned("Not Injected", said=0), Evidence.NONE),
        (assigned("Not Injected", final=True), Evidence.SETTLED),
    ],
)
def test_the_word_of_an_agent_counts_for_the_target_and_the_order_it_is_about(one, expected):
    assert reports([one])[KEY].evidence is expected


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (assigned("Not Injected"), True),
        (assigned("Not Injected", observed=1), False),
        (assigned("Not Injected", wanted="Run"), False),
        (assigned("Injected"), False),
        (assigned("", listed=False), False),
    ],
)
def test_a_node_fault_is_over_when_its_agent_answers_the_stop_for_every_target(one, expected):
    assert taken_back(one) is expected


@pytest.mark.parametrize(
    ("phase", "observed", "expected"),
    [
        ("Injected", 2, Evidence.NONE),
        ("Not Injected", 2, Evidence.NONE),
        ("", 1, Evidence.NONE),
        ("", 2, Evidence.CLEAN),
    ],
)
def test_a_target_taken_off_the_list_is_clean_when_its_agent_shows_it_no_more(
    phase, observed, expected
):
    one = assigned(phase or "Not Injected", observed=observed, listed=False)
    if not phase:
        one = replace(one, status=one.status.model_copy(update={"targets": []}))
    assert unassigned(KEY, [one]).evidence is expected


def test_an_emptied_node_fault_stays_until_its_agent_shows_nothing():
    one = assigned("Not Injected", listed=False)
    assert not emptied(one)
    assert emptied(replace(one, status=one.status.model_copy(update={"targets": []})))
    assert not emptied(assigned("", listed=False))
    assert not emptied(assigned("Not Injected"))
