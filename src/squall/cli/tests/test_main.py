import sys

import pytest

from squall.cli import main
from squall.cli.get import proof, state
from squall.errors import InvalidFault, TryAgain, Unsupported


class Refusing:
    """Parts that raise what they are given, whatever is asked."""

    def __init__(self, error):
        self._error = error

    def __getattr__(self, name):
        raise self._error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidFault("no"), 2),
        (Unsupported("no"), 3),
        (TryAgain("no"), 75),
        (ConnectionRefusedError("no"), 1),
    ],
)
def test_an_error_becomes_its_exit_code_and_one_line(monkeypatch, capsys, error, status):
    monkeypatch.setattr(sys, "argv", ["squall", "halt"])
    assert main(Refusing(error)) == status
    assert capsys.readouterr().err == "squall: no\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["up", "--listen", "here"], "ADDRESS:PORT"),
        (["recover"], "say --all"),
        (["run", "--name", "web", "--label", "app", "--", "sleep", "1"], "key=value"),
        (["apply", "-f", "/nonexistent.yaml"], "nonexistent"),
        (["get", "wobble"], "there is no kind"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_and_touches_nothing(monkeypatch, capsys, arguments, told):
    monkeypatch.setattr(sys, "argv", ["squall", *arguments])
    assert main(Refusing(AssertionError("touched"))) in {1, 2}
    assert told in capsys.readouterr().err


def test_a_manifest_of_an_unknown_kind_is_refused_before_anything_is_made(
    monkeypatch, capsys, tmp_path
):
    file = tmp_path / "wobble.yaml"
    file.write_text("apiVersion: v9\nkind: Wobble\nmetadata: {name: a}\n")
    monkeypatch.setattr(sys, "argv", ["squall", "apply", "-f", str(file)])
    assert main(Refusing(AssertionError("touched"))) == 2
    assert "Wobble is not served" in capsys.readouterr().err


def test_the_worst_proof_comes_first():
    records = [
        {"proof": {"verdict": "Confirmed", "measured": "100 ms"}},
        {"proof": {"verdict": "Mismatch", "measured": "3 ms"}},
        {},
    ]
    obj = {"status": {"experiment": {"containerRecords": records}}}
    assert proof(obj) == "Mismatch: 3 ms; Confirmed: 100 ms"


def test_what_kept_an_experiment_from_its_targets_is_told():
    why = "default/web/web: /var/lib/data: no such directory there"
    conditions = [
        {"type": "Selected", "status": "True"},
        {"type": "AllInjected", "status": "False", "reason": why},
        {"type": "Paused", "status": "False"},
    ]
    status = {"conditions": conditions, "experiment": {"containerRecords": [{}]}}
    assert proof({"status": status}) == why
    status["experiment"]["containerRecords"] = [{"proof": {"verdict": "Confirmed"}}]
    assert proof({"status": status}) == f"{why}; Confirmed"
    status["experiment"]["interrupted"] = why
    assert proof({"status": status}) == "Confirmed"


def test_a_pods_state_is_its_phase_and_an_experiments_what_holds():
    assert state({"status": {"phase": "Running"}}) == "Running"
    conditions = [{"type": "Selected", "status": "True"}, {"type": "Paused", "status": "False"}]
    assert state({"status": {"conditions": conditions}}) == "Selected"
    assert state({}) == ""
