import asyncio

import pytest

from squall.api.cluster import LEASE
from squall.api.fake_cluster import FakeCluster
from squall.clock import FakeClock, settle
from squall.controller.lease import Leadership

SECONDS = 60.0


class Hall:
    """Candidates for one lease, each with its own line to the API."""

    def __init__(self):
        self.cluster, self.clock, self.tasks = FakeCluster(), FakeClock(), []

    def candidate(self, identity, cluster=None):
        one = Leadership(
            cluster or self.cluster, self.clock,
            namespace="squall", identity=identity, lease_seconds=SECONDS, changed=lambda _: None,
        )  # fmt: skip
        self.tasks.append(asyncio.create_task(one.run()))
        return one

    @property
    def spec(self):
        return self.cluster.objects[LEASE, "squall", "squall-controller"]["spec"]


class Line:
    """A line to the API that can be cut, or left hanging."""

    def __init__(self, cluster):
        self.cluster, self.hangs = cluster, False

    async def get(self, *args):
        return await self._do(self.cluster.get, *args)

    async def create(self, *args):
        return await self._do(self.cluster.create, *args)

    async def patch(self, *args):
        return await self._do(self.cluster.patch, *args)

    async def watch(self, *args, **kwargs):
        async for event in self.cluster.watch(*args, **kwargs):
            if self.hangs:
                await asyncio.Event().wait()
            yield event

    async def _do(self, call, *args):
        if self.hangs:
            await asyncio.Event().wait()
        return await call(*args)


@pytest.fixture
async def hall():
    hall = Hall()
    yield hall
    for task in hall.tasks:
        task.cancel()
    await asyncio.gather(*hall.tasks, return_exceptions=True)


async def test_one_leads_and_renews_three_times_in_a_lease(hall):
    one = hall.candidate("one")
    await settle()
    assert one.leads
    first = hall.spec["renewTime"]
    await hall.clock.advance(SECONDS / 3)
    assert hall.spec["renewTime"] > first
    assert hall.spec["leaseDurationSeconds"] == 60


async def test_a_second_one_stands_by_as_long_as_the_first_renews(hall):
    one, two = hall.candidate("one"), hall.candidate("two")
    await hall.clock.advance(10 * SECONDS)
    assert (one.leads, two.leads) == (True, False)
    assert hall.spec["holderIdentity"] == "one"


@pytest.mark.parametrize("how", ["hangs", "down"])
async def test_a_cut_off_leader_stops_before_another_takes_over(hall, how):
    line = Line(hall.cluster)
    other = FakeCluster()
    one, two = hall.candidate("one", line), hall.candidate("two")
    await settle()
    assert one.leads
    if how == "hangs":
        line.hangs = True
    else:
        line.cluster, other.down = other, True
    both = never = True
    for _ in range(int(SECONDS)):
        await hall.clock.advance(1)
        both = both and not (one.leads and two.leads)
        never = never and not two.leads
    assert both
    assert not never
    assert (one.leads, two.leads) == (False, True)
    assert hall.spec["holderIdentity"] == "two"
    assert hall.spec["leaseTransitions"] == 1


async def test_a_missed_renewal_or_two_change_nothing(hall):
    line = Line(hall.cluster)
    one = hall.candidate("one", line)
    await settle()
    await hall.clock.advance(SECONDS / 3 - 1)
    line.hangs = True
    await hall.clock.advance(6)
    assert one.leads
    line.hangs = False
    await hall.clock.advance(SECONDS)
    assert one.leads
    assert hall.spec["leaseTransitions"] == 0


async def test_a_leader_that_finds_another_one_stops_at_once(hall):
    one = hall.candidate("one")
    await settle()
    taken = {"spec": {"holderIdentity": "two"}}
    await hall.cluster.patch(LEASE, "squall", "squall-controller", taken)
    await hall.clock.advance(SECONDS / 3)
    assert not one.leads
