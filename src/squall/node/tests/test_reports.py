"""How often statuses are written: neither the size of a NodeFault nor their number may matter."""

import asyncio

import pytest

from squall.api.cluster import NODE_FAULT
from squall.node.reports import (
    GATHER_SECONDS,
    PASSING_SECONDS,
    PROOF_SECONDS,
    SEEN_SECONDS,
    SHARE_SECONDS,
)
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
    """Read the phase of each record in every status that is written."""
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


async def test_that_a_fault_was_seen_is_not_worth_a_write_while_it_begins(bench, written):
    bench.walls.stuck["default/web-0"] = stuck = asyncio.Event()
    await bench.start()
    await bench.fault(targets=[bench.target("web-0")])
    await bench.pass_seconds(GATHER_SECONDS + 1)
    stuck.set()
    await bench.rest()
    assert written == [["Injected"]]


async def test_that_a_fault_was_seen_is_told_when_it_takes_long_to_begin(bench, written):
    bench.walls.stuck["default/web-0"] = asyncio.Event()
    await bench.start()
    await bench.fault(targets=[bench.target("web-0")])
    await bench.pass_seconds(SEEN_SECONDS)
    assert written == [["Not Injected"]]
    status = bench.cluster.objects[NODE_FAULT, "squall", "f1"]["status"]
    assert status["observedGeneration"] == 1


def verdicts(bench):
    return {record["proof"]["verdict"] for record in bench.records() if record.get("proof")}


@pytest.fixture
async def unseen(bench, written):
    """A fault that acts, says so, and is looked at in the dark."""
    bench.walls.dark, bench.walls.looks = True, asyncio.Event()
    await bench.start()
    await bench.fault(targets=[bench.target("web-0")])
    assert written == [["Injected"]]
    bench.walls.looks.set()
    return bench


async def test_what_nobody_can_tell_yet_is_not_written_before_it_is_tried_some_more(
    unseen, written
):
    await unseen.pass_seconds(PASSING_SECONDS - 2)
    unseen.walls.dark = False
    await unseen.pass_seconds(1 + GATHER_SECONDS)
    assert verdicts(unseen) == {"Confirmed"}
    assert len(written) == 2


async def test_what_nobody_can_tell_is_said_in_time(unseen, written):
    await unseen.pass_seconds(PASSING_SECONDS + 1)
    assert verdicts(unseen) == {"Inconclusive"}
    assert len(written) == 2


@pytest.mark.parametrize("faults", [1, 20])
async def test_numbers_of_many_faults_are_written_as_often_as_those_of_few(bench, written, faults):
    await bench.start()
    for number in range(faults):
        await bench.fault(f"f{number}", targets=[bench.target(f"web-{number}")])
    await bench.pass_seconds(15)
    written.clear()
    seconds = 2 * SHARE_SECONDS * faults
    await bench.pass_seconds(max(seconds, PROOF_SECONDS + 5))
    assert 1 <= len(written) / faults <= 2
