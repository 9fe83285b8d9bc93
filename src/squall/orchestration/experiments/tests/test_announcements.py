"""What is said of many targets at once."""

import pytest

from squall.api.node_fault import Proof
from squall.orchestration.experiments import announcements as say


def test_what_is_said_of_one_target_keeps_upstreams_words():
    said = say.gathered([say.STARTED, say.applied("default/a")])
    assert [one.message for one in said] == [
        "Experiment has started",
        "Successfully apply chaos for default/a",
    ]
    assert dict(said[1].fields) == {"id": "default/a"}


def test_what_is_the_same_for_several_targets_is_said_once():
    (said,) = say.gathered([say.applied("default/a"), say.applied("default/b")])
    assert said.message == "Successfully apply chaos for 2 targets: default/a, default/b"
    assert dict(said.fields) == {"id": "default/a,default/b", "targets": "2"}


def test_one_event_for_each_reason_whatever_was_measured_or_went_wrong():
    proofs = [Proof(verdict="Confirmed", asked="delay 10 ms", measured=f"{n} ms") for n in (9, 11)]
    ids = [f"default/{n}" for n in range(3)]
    said = say.gathered(
        [say.proven(f"default/{n}", proof) for n, proof in enumerate(proofs)]
        + [say.failed_on(id_, "apply chaos", "no agent answers") for id_ in ids]
    )
    assert [(one.reason, one.message) for one in said] == [
        (
            "Confirmed",
            "asked delay 10 ms, measured in 2 targets: default/0: 9 ms; default/1: 11 ms",
        ),
        (
            "Failed",
            f"Failed to apply chaos for 3 targets (no agent answers): {', '.join(ids)}",
        ),
    ]
    assert dict(said[0].fields)["asked"] == "delay 10 ms"


def test_verdicts_are_never_mixed():
    good, bad = Proof(verdict="Confirmed"), Proof(verdict="Mismatch")
    said = say.gathered([say.proven("default/a", good), say.proven("default/b", bad)])
    assert [(one.type, one.reason) for one in said] == [
        ("Normal", "Confirmed"),
        ("Warning", "Mismatch"),
    ]


@pytest.mark.parametrize("length", [5, 60, 500, 2000])
def test_a_message_fits_into_an_event_and_says_how_many_are_left_out(length):
    ids = [f"{n:03d}{'x' * length}" for n in range(300)]
    (said,) = say.gathered([say.recovered(id_) for id_ in ids])
    assert len(said.message) <= say.LONGEST_MESSAGE
    assert len(said.fields["id"]) <= say.LONGEST_MESSAGE
    named = said.message.count(f"{'x' * length}")
    assert said.message.endswith(f"and {300 - named} more")
    assert f"for {len(ids)} targets: " in said.message
