from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from squall.api.status import INJECTED, Experiment, ExperimentStatus
from squall.faults import kinds
from squall.orchestration.experiments.desire import Cause, desire, let_go_at
from squall.orchestration.experiments.facts import Facts, Seen
from squall.orchestration.experiments.records import fresh

NETWORK, POD = kinds()["NetworkChaos"], kinds()["PodChaos"]
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def seen(kind=NETWORK, *, status=None, duration=None, hold=False, **facts):
    action = {"action": "delay", "delay": {"latency": "1ms"}}
    spec = {"selector": {}, "mode": "all", "action": "pod-kill"} | (
        action if kind is NETWORK else {}
    )
    spec |= {"duration": duration} if duration else {}
    spec |= {"whenCutOff": "hold"} if hold else {}
    base = Seen("K", "default", "x", "uid", START, spec=kind.spec.model_validate(spec))
    return replace(base, status=status or base.status, **facts)


def wanted(one, kind=NETWORK, *, after=0.0, halt=None):
    return desire(Facts(kind, one, halt=halt), one, START + timedelta(seconds=after))


def stopped(why):
    return ExperimentStatus(experiment=Experiment(interrupted=why))


def struck(phase):
    record = fresh(".", "default/a").model_copy(update={"phase": phase})
    return ExperimentStatus(experiment=Experiment(container_records=[record]))


@pytest.mark.parametrize(
    ("one", "more", "cause"),
    [
        (seen(), {}, Cause.STARTED),
        (seen(paused=True), {}, Cause.PAUSED),
        (seen(duration="5s"), {"after": 4.9}, Cause.STARTED),
        (seen(duration="5s"), {"after": 5.0}, Cause.TIME_UP),
        (seen(duration="5s", paused=True), {"after": 9.0}, Cause.TIME_UP),
        (seen(deleted=START, duration="5s"), {"after": 9.0}, Cause.DELETED),
        (seen(), {"halt": "now"}, Cause.INTERRUPTED),
        (seen(paused=True), {"halt": "now"}, Cause.PAUSED),
        (seen(status=stopped("halted: x")), {}, Cause.INTERRUPTED),
        (seen(status=stopped("halted: x"), paused=True), {}, Cause.PAUSED),
        (seen(POD), {"kind": POD}, Cause.STARTED),
        (seen(POD, paused=True, duration="5s"), {"kind": POD, "after": 9.0}, Cause.STARTED),
        (seen(POD), {"kind": POD, "halt": "now"}, Cause.INTERRUPTED),
        (seen(POD, status=struck(INJECTED)), {"kind": POD, "halt": "now"}, Cause.STARTED),
    ],
)
def test_what_decides_whether_it_runs(one, more, cause):
    assert wanted(one, **more).cause is cause


def test_a_halt_leaves_its_mark_until_somebody_pauses():
    first = wanted(seen(), halt="outage")
    assert first.interrupted == "halted: outage"
    assert wanted(seen(status=stopped("halted: outage")), halt="second").interrupted == (
        "halted: outage"
    )
    assert wanted(seen(status=stopped("halted: outage"), paused=True)).interrupted is None


def test_an_experiment_that_would_not_run_is_not_marked_by_a_halt():
    assert wanted(seen(paused=True), halt="now").interrupted is None
    assert wanted(seen(duration="5s"), after=9, halt="now").interrupted is None


@pytest.mark.parametrize(
    ("one", "seconds"),
    [
        (seen(deleted=START), 70),
        (seen(deleted=START, duration="300s"), 70),
        (seen(deleted=START, duration="300s", hold=True), 310),
        (seen(deleted=START + timedelta(seconds=400), duration="300s", hold=True), 410),
    ],
)
def test_a_deleted_object_waits_as_long_as_a_node_takes_to_heal_itself(one, seconds):
    facts = Facts(NETWORK, one, lease_seconds=60)
    assert let_go_at(facts, one, wanted(one).ends) == START + timedelta(seconds=seconds)


def test_what_is_not_deleted_is_never_let_go():
    assert let_go_at(Facts(NETWORK, seen()), seen(), None) is None
