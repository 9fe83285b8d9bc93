from datetime import UTC, datetime
from itertools import product

import pytest

from squall.api.node_fault import Proof
from squall.api.status import INJECTED, INJECTED_WAIT, NOT_INJECTED, NOT_INJECTED_WAIT, Record
from squall.orchestration.experiments.evidence import Evidence, Report
from squall.orchestration.experiments.records import (
    MAX_EVENTS,
    MOVES,
    TOUCHED,
    fresh,
    kept_events,
    move,
    retired,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PHASES = (NOT_INJECTED, NOT_INJECTED_WAIT, INJECTED, INJECTED_WAIT)


def record(phase, injected=1, recovered=0, **more):
    counts = {"injected_count": injected, "recovered_count": recovered}
    return fresh(".", "default/a").model_copy(update={"phase": phase, **counts, **more})


def moved(phase, evidence, *, hit, **said):
    report = Report(evidence, "n1", **said)
    return move(record(phase), hit=hit, report=report, now=NOW, detailed=True)


def test_every_phase_has_a_move():
    assert set(MOVES) == set(product((True, False), PHASES))


@pytest.mark.parametrize(("hit", "phase"), MOVES)
def test_a_touched_target_is_never_called_clean_without_evidence(hit, phase):
    after = moved(phase, Evidence.NONE, hit=hit).record.phase
    if phase in TOUCHED:
        assert after in TOUCHED


@pytest.mark.parametrize("phase", PHASES)
def test_a_target_that_carries_the_fault_is_never_called_clean(phase):
    for hit in (True, False):
        assert moved(phase, Evidence.INJECTED, hit=hit).record.phase in TOUCHED


@pytest.mark.parametrize("phase", PHASES)
def test_evidence_ends_every_stop(phase):
    for evidence in (Evidence.CLEAN, Evidence.SETTLED):
        assert moved(phase, evidence, hit=False).record.phase == NOT_INJECTED


@pytest.mark.parametrize(
    ("hit", "phase", "evidence", "injected", "recovered"),
    [
        (True, NOT_INJECTED_WAIT, Evidence.INJECTED, 2, 0),
        (True, INJECTED, Evidence.INJECTED, 1, 0),
        (True, INJECTED_WAIT, Evidence.INJECTED, 2, 0),
        (False, INJECTED_WAIT, Evidence.CLEAN, 1, 1),
        (True, INJECTED, Evidence.SETTLED, 1, 1),
        (False, NOT_INJECTED, Evidence.CLEAN, 1, 0),
    ],
)
def test_counts_follow_what_happened(hit, phase, evidence, injected, recovered):
    after = moved(phase, evidence, hit=hit).record
    assert (after.injected_count, after.recovered_count) == (injected, recovered)


def test_a_target_cut_short_before_it_was_injected_was_not_recovered():
    short = record(NOT_INJECTED_WAIT, injected=0)
    after = move(short, hit=False, report=Report(Evidence.CLEAN), now=NOW, detailed=True)
    assert after.record.recovered_count == 0
    assert not after.announcements


def test_the_same_failure_is_told_once():
    first = moved(NOT_INJECTED_WAIT, Evidence.CLEAN, hit=True, message="busy")
    assert [said.reason for said in first.announcements] == ["Failed"]
    assert first.record.events[-1].operation == "Apply"
    again = move(
        first.record,
        hit=True,
        report=Report(Evidence.CLEAN, message="busy"),
        now=NOW,
        detailed=True,
    )
    assert not again.announcements
    assert again.record == first.record


def test_events_are_capped_with_the_oldest_dropped():
    full: Record = fresh(".", "default/a")
    for number in range(MAX_EVENTS + 5):
        report = Report(Evidence.CLEAN, message=f"failure {number}")
        full = move(full, hit=True, report=report, now=NOW, detailed=True).record
    assert len(full.events) == MAX_EVENTS
    assert full.events[0].message == "failure 5"


def test_proof_is_copied_and_its_verdict_told_when_it_changes():
    proof = Proof(verdict="Confirmed", asked="delay 100 ms", measured="100.3 ms")
    after = moved(NOT_INJECTED_WAIT, Evidence.INJECTED, hit=True, proof=proof)
    assert after.record.proof == proof
    assert [said.reason for said in after.announcements] == ["Applied", "Confirmed"]
    bad = proof.model_copy(update={"verdict": "Mismatch"})
    report = Report(Evidence.INJECTED, proof=bad)
    worse = move(after.record, hit=True, report=report, now=NOW, detailed=True)
    assert [(said.reason, said.type) for said in worse.announcements] == [("Mismatch", "Warning")]


def test_an_agent_that_met_our_own_stop_half_way_does_not_change_the_verdict():
    proof = Proof(verdict="Confirmed", asked="a", measured="b")
    late = Proof(verdict="Interrupted", after={"rtt_ms": 0.2})
    report = Report(Evidence.CLEAN, proof=late)
    after = move(
        record(INJECTED_WAIT, proof=proof), hit=False, report=report, now=NOW, detailed=True
    )
    assert after.record.proof.verdict == "Confirmed"
    assert after.record.proof.after == {"rtt_ms": 0.2}


def test_what_the_agent_interrupted_is_retired():
    assert retired(record(NOT_INJECTED, proof=Proof(verdict="Interrupted")))
    assert not retired(record(NOT_INJECTED_WAIT, proof=Proof(verdict="Interrupted")))
    assert not retired(record(NOT_INJECTED, proof=Proof(verdict="Confirmed")))


def test_among_very_many_targets_records_say_the_least():
    report = Report(Evidence.INJECTED, proof=Proof(verdict="Confirmed"))
    after = move(record(NOT_INJECTED_WAIT), hit=True, report=report, now=NOW, detailed=False)
    assert after.record.phase == INJECTED
    assert (after.record.events, after.record.proof) == ([], None)
    assert [said.reason for said in after.announcements] == ["Applied"]


@pytest.mark.parametrize(("targets", "each"), [(1, 100), (30, 100), (1000, 3), (1001, 0)])
def test_the_more_targets_the_fewer_events_each_record_keeps(targets, each):
    assert kept_events(targets) == each


def test_the_latest_events_are_kept():
    known = record(NOT_INJECTED_WAIT)
    for why in ("first", "second", "third"):
        report = Report(Evidence.CLEAN, message=why)
        known = move(known, hit=True, report=report, now=NOW, detailed=True, most_events=2).record
    assert [event.message for event in known.events] == ["second", "third"]
