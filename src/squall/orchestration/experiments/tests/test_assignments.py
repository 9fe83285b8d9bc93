"""Names of NodeFaults: any node's name may be in them."""

import re

import pytest

from squall.orchestration.experiments.assignments import located, node_fault_name
from squall.orchestration.experiments.pods import Container, Pod
from squall.orchestration.experiments.records import fresh

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


PLACED = Container("main", "x://1", running=True)


@pytest.mark.parametrize(
    ("pod", "container", "found"),
    [
        (Pod("d", "p", node="n1", containers=(PLACED,)), "", "x://1"),
        (Pod("d", "p", node="n1", containers=(PLACED,)), "main", "x://1"),
        (Pod("d", "p", node="n1", containers=(PLACED,)), "side", None),
        (
            Pod("d", "p", node="n1", others=(Container("side", "x://2", running=True),)),
            "side",
            "x://2",
        ),
        (Pod("d", "p", node="n1", others=(Container("side", "x://2"),)), "side", None),
        (Pod("d", "p", node="n1", others=(PLACED,)), "", None),
    ],
)
def test_a_target_is_the_container_of_any_sort_that_it_names(pod, container, found):
    record = fresh(".", "/".join(filter(None, ("d/p", container))))
    place = located(record, {"d/p": pod}, None)
    assert (place.target.container_id if place else None) == found
