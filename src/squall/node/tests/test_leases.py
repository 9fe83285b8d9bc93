from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.api.cluster import Change, Event
from squall.api.node_fault import ExperimentReference, NodeFaultSpec
from squall.node.journal import Noted
from squall.node.leases import (
    Halts,
    Held,
    Silence,
    Situation,
    Standing,
    next_moment,
    stands,
    with_deadline,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EXPERIMENT = ExperimentReference(kind="K", namespace="d", name="e", uid="x", created=NOON)
SPEC = NodeFaultSpec(
    node_name="n", experiment=EXPERIMENT, desired_phase="Run", faults={}, targets=[]
)
OBJECT = {"metadata": {"uid": "u", "name": "f", "generation": 2}}
HELD = Held(Noted(OBJECT), SPEC, ran=True)
HEARD = Situation(now=1000.0, silent_from=1060.0)
SILENT = Situation(now=1060.0, silent_from=1060.0)


def spec(**changes):
    return SPEC.model_copy(update=changes)


ENDS_SOON = replace(
    HELD,
    noted=Noted(OBJECT, NOON, 1000.0),
    spec=spec(deadline=NOON, when_cut_off="hold"),
)


@pytest.mark.parametrize(
    ("held", "situation", "standing", "word"),
    [
        (HELD, HEARD, Standing.RUNS, ""),
        (HELD, SILENT, Standing.INTERRUPTED, "silent"),
        (replace(HELD, ran=False), SILENT, Standing.WAITS, "renew"),
        (HELD, replace(HEARD, halted="fire"), Standing.INTERRUPTED, "fire"),
        (HELD, replace(HEARD, halted=""), Standing.INTERRUPTED, "halted"),
        (HELD, replace(HEARD, stopping=True), Standing.STOPS, ""),
        (replace(HELD, spec=spec(desired_phase="Stop")), SILENT, Standing.STOPS, ""),
        (replace(HELD, noted=Noted(OBJECT, None, None, 2, "x")), HEARD, Standing.INTERRUPTED, "x"),
        (replace(HELD, noted=Noted(OBJECT, None, None, 1, "x")), HEARD, Standing.RUNS, ""),
        (ENDS_SOON, replace(HEARD, now=999.9), Standing.RUNS, ""),
        (ENDS_SOON, HEARD, Standing.INTERRUPTED, "over"),
        (ENDS_SOON, replace(HEARD, silent_from=999.0), Standing.INTERRUPTED, "over"),
        (ENDS_SOON, Situation(999.9, 900.0), Standing.RUNS, ""),
    ],
)
def test_a_fault_stands_as_its_situation_says(held, situation, standing, word):
    found, why = stands(held, situation)
    assert found is standing
    assert word in why


def test_silence_begins_one_lease_after_the_last_renewal_that_was_seen_to_change():
    silence = Silence(10.0, 1000.0)
    for now, renewed in [(1001.0, "a"), (1002.0, "b"), (1005.0, "b"), (1009.0, "b")]:
        silence.saw({"spec": {"holderIdentity": "c", "renewTime": renewed}}, now)
    assert silence.begins == 1012.0


def test_another_leader_is_a_renewal():
    silence = Silence(10.0, 1000.0)
    silence.saw({"spec": {"holderIdentity": "a", "renewTime": "t"}}, 1001.0)
    silence.saw({"spec": {"holderIdentity": "b", "renewTime": "t"}}, 1002.0)
    assert silence.begins == 1012.0


def test_a_deadline_is_fixed_at_first_sight_and_moves_only_with_the_spec():
    first = with_deadline(Noted(OBJECT), NOON + timedelta(seconds=30), NOON, 1000.0)
    assert first.deadline_boot == 1030.0
    stepped = NOON - timedelta(hours=1)
    assert with_deadline(first, first.deadline, stepped, 1001.0) == first
    moved = with_deadline(first, NOON + timedelta(seconds=60), NOON, 1010.0)
    assert moved.deadline_boot == 1070.0
    assert with_deadline(first, None, NOON, 1010.0).deadline_boot is None


helds = st.builds(
    Held,
    st.builds(
        Noted,
        st.just(OBJECT),
        st.just(NOON),
        st.none() | st.floats(990, 1100),
        st.sampled_from([None, 1, 2]),
    ),
    st.builds(
        spec,
        desired_phase=st.sampled_from(["Run", "Stop"]),
        when_cut_off=st.sampled_from(["restore", "hold"]),
        deadline=st.sampled_from([None, NOON]),
    ),
    st.booleans(),
)
situations = st.builds(
    Situation, st.floats(990, 1100), st.floats(990, 1100), st.sampled_from([None, "h"])
)


@given(helds, situations, st.floats(0, 200))
def test_nothing_changes_before_the_next_moment(held, situation, later):
    moment = next_moment(held, situation)
    then = replace(situation, now=min(situation.now + later, 1e6))
    if then.now < moment:
        assert stands(held, then) == stands(held, situation)


@given(helds, situations)
def test_a_deadline_always_heals(held, situation):
    if held.noted.deadline_boot is not None:
        late = replace(situation, now=held.noted.deadline_boot)
        assert stands(held, late)[0] in {Standing.STOPS, Standing.INTERRUPTED}


@given(helds, situations)
def test_what_was_taken_back_is_not_begun_again(held, situation):
    if held.interrupted:
        assert stands(held, situation)[0] in {Standing.STOPS, Standing.INTERRUPTED}


def test_a_halt_that_somebody_lifted_is_lifted_whatever_holds_its_object():
    halts = Halts()
    metadata = {"name": "stop", "finalizers": ["example.com/mine"]}
    spec = {"reason": "outage"}
    halts.saw(Event(Change.ADDED, {"metadata": metadata, "spec": spec}))
    assert halts.reason == "outage"
    lifted = metadata | {"deletionTimestamp": "2026-01-01T12:00:00Z"}
    assert halts.saw(Event(Change.MODIFIED, {"metadata": lifted, "spec": spec}))
    assert halts.reason is None
    halts.saw(Event(Change.DELETED, {"metadata": lifted, "spec": spec}))
    assert halts.reason is None
