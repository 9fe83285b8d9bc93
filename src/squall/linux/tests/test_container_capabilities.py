from pathlib import Path

import pytest

from squall.linux.container_capabilities import CONTAINER_TRIALS
from squall.node.doctor import Ability

pytestmark = [pytest.mark.host, pytest.mark.kernel]


def trials_left():
    return {str(path) for path in Path("/sys/fs/cgroup").rglob("squall-trial-*")}


@pytest.mark.parametrize("name", CONTAINER_TRIALS)
async def test_what_this_host_can_do_is_found_out_without_a_trace(name):
    before = trials_left()
    capability = await CONTAINER_TRIALS[name]()
    assert capability.name == name
    assert capability.ability is Ability.OK, capability.why
    assert "cgroup v" in capability.path
    assert trials_left() <= before


async def test_a_missing_stress_ng_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    capability = await CONTAINER_TRIALS["stress:cpu"]()
    assert capability.ability is Ability.MISSING
    assert "apt install stress-ng" in capability.why
