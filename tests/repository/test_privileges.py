"""What an agent is granted is what it uses, and no more."""

from pathlib import Path

import yaml

from squall.faults import kinds
from squall.injection.privileges import ALWAYS, BY_NEED, privileges

VALUES = Path(__file__).parents[2] / "deploy/helm/squall/values.yaml"
NEEDS = {need for kind in kinds().values() for need in kind.needs}


def test_what_every_need_takes_is_known():
    assert set(BY_NEED) == NEEDS


def test_the_chart_grants_an_agent_exactly_what_its_kinds_take():
    granted = yaml.safe_load(VALUES.read_text())["agent"]["capabilities"]
    assert set(granted) == set(privileges(NEEDS))
    assert len(granted) == len(set(granted))


def test_a_kind_takes_what_is_always_taken_and_its_own_and_says_what_for():
    found = privileges(["stress:cpu", "stress:memory"])
    assert set(found) == {*ALWAYS, "SETUID", "SETGID"}
    assert found["SETUID"] == "run stress-ng as nobody"
