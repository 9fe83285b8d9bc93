"""How often the status of a NodeFault is written: its size must not matter."""

import asyncio

import pytest

from squall.api.cluster import NODE_FAULT
from squall.node.reports import GATHER_SECONDS
from squall.node.tests.bench import Bench

TARGETS = 40


@pytest.fixture
async def bench(tmp_path):
    bench = Bench(tmp_path)
    await bench.renew()
    for number in range(TARGETS):
        await bench.pod(f"web-{number}")
    yield bench
    await bench.close()


@pytest.fixture
def written(bench):
    """Count the records of each phase in every status that is written."""
    statuses = []
    patch = bench.cluster.patch

    async def noted(resource, namespace, name, change, *, subresource=""):
        if resource == NODE_FAULT and subresource == "status":
            statuses.append([record["phase"] for record in change["status"]["targets"]])
        return await patch(resource, namespace, name, change, subresource=subresource)

    bench.cluster.patch = noted
    return statuses


async def test_forty_targets_make_one_status_for_each_change(bench, written):
    await bench.start()
    targets = [bench.target(f"web-{number}") for number in range(TARGETS)]
    await bench.fault(targets=targets)
    assert written == [["Injected"] * TARGETS]
    await bench.pass_seconds(GATHER_SECONDS)
    assert {record["proof"]["verdict"] for record in bench.records()} == {"Confirmed"}
    assert len(written) <= 2  # one more for the verdicts, unless they came as soon
    written.clear()
    await bench.change(desiredPhase="Stop")
    assert written[0] == ["Not Injected"] * TARGETS
    assert len(written) == 1


async def test_a_target_that_takes_its_time_holds_up_the_others_for_a_moment_only(bench, written):
    bench.walls.stuck["default/web-1"] = asyncio.Event()
    await bench.start()
    await bench.fault(targets=[bench.target("web-0"), bench.target("web-1")])
    assert written == []
    await bench.pass_seconds(GATHER_SECONDS)
    assert written[0] == ["Injected", "Not Injected"]
