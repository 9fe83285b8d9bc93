"""What many targets share: writes to the disk, requests, and the time of whoever waits for all."""

import asyncio

import pytest

from squall.api.cluster import NODE_FAULT
from squall.node.tests.bench import Bench


@pytest.fixture
async def bench(tmp_path):
    bench = Bench(tmp_path)
    await bench.renew()
    for name in NAMES:
        await bench.pod(name)
    yield bench
    await bench.close()


NAMES = [f"p{n}" for n in range(20)]


async def test_what_is_about_to_be_done_to_many_targets_is_one_write(bench):
    await bench.start()
    bench.fate.changes = 0
    await bench.fault(targets=[bench.target(name) for name in NAMES])
    assert all(bench.colors(name) == ["red"] for name in NAMES)
    each = len(NAMES) * 3  # its note, its sign, its coat
    assert bench.fate.changes - each <= 3


async def test_nobody_is_measured_while_others_wait_to_be_changed(bench):
    bench.walls.stuck["default/p0"] = asyncio.Event()
    await bench.start()
    await bench.fault(targets=[bench.target(name) for name in NAMES])
    await bench.rest()
    assert bench.colors("p1") == ["red"]
    assert not any(record.get("proof") for record in bench.records())
    bench.walls.stuck["default/p0"].set()
    await bench.pass_seconds(1)
    assert all(record["proof"]["verdict"] == "Confirmed" for record in bench.records())


async def test_one_target_that_hangs_keeps_nobody_from_being_measured_for_long(bench):
    bench.walls.stuck["default/p0"] = asyncio.Event()
    await bench.start()
    await bench.fault(targets=[bench.target(name) for name in NAMES])
    await bench.pass_seconds(2)
    measured = [record for record in bench.records() if record.get("proof")]
    assert len(measured) == len(NAMES) - 1


async def test_a_status_that_is_not_answered_holds_up_no_other(bench):
    waits, patch = asyncio.Event(), bench.cluster.patch

    async def slow(resource, namespace, name, change, *, subresource=""):
        if resource == NODE_FAULT and name == "f1" and subresource:
            await waits.wait()
        return await patch(resource, namespace, name, change, subresource=subresource)

    bench.cluster.patch = slow
    await bench.start()
    for number, name in enumerate(NAMES[:3], start=1):
        await bench.fault(f"f{number}", targets=[bench.target(name)])
    await bench.pass_seconds(1)
    assert bench.records("f1") == []
    assert [bench.record(name)["phase"] for name in ("f2", "f3")] == ["Injected"] * 2
    await bench.pass_seconds(1)
    bench.cluster.patch = patch
    waits.set()
    await bench.pass_seconds(1)
    assert [bench.record(name)["phase"] for name in ("f1", "f2", "f3")] == ["Injected"] * 3
