"""Names of NodeFaults: any node's name may be in them."""

import re

import pytest

from squall.orchestration.experiments.assignments import node_fault_name

UID = "0b1c2d3e-0000-0000-0000-000000000000"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LONG = ".".join(["n" * 62] * 4)


def test_a_name_tells_experiment_and_node():
    assert node_fault_name("NetworkChaos", UID, "worker-1") == "networkchaos-0b1c2d3e-worker-1"


@pytest.mark.parametrize("length", range(224, 254))
def test_a_long_name_is_a_name_still_and_belongs_to_one_node_alone(length):
    nodes = [LONG[: length - 2] + end for end in ("aa", "ab")]
    names = {node_fault_name("StressChaos", UID, node) for node in nodes}
    assert len(names) == 2
    assert all(len(name) <= 253 and NAME.fullmatch(name) for name in names)
