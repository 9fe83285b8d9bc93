import asyncio
from datetime import timedelta

import pytest

from squall.api.cluster import LEASE
from squall.api.fake_cluster import FakeCluster
from squall.clock import FakeClock, settle
from squall.controller.lease import Leadership
from squall.orchestration.experiments.pods import Container, Pod

SECONDS = 60.0
TAKEN = {"holderIdentity": "two", "acquireTime": "now"}


def pod(name, *, running=True, uid="u1", container="containerd://1"):
    """The pod of a controller."""
    main = Container("controller", container, running)
    return Pod("squall", name, uid, containers=(main,))


class Hall:
    """Candidates for one lease, each with its own line to the API."""

    def __init__(self):
        self.cluster, self.clock, self.tasks = FakeCluster(), FakeClock(), []

    def candidate(self, identity, cluster=None, changed=lambda _: None, pod_of=lambda _: None):
        one = Leadership(
            cluster or self.cluster, self.clock,
            namespace="squall", identity=identity, lease_seconds=SECONDS, changed=changed,
            pod_of=pod_of,
        )  # fmt: skip
        self.tasks.append(asyncio.create_task(one.run()))
        return one

    @property
    def spec(self):
        return self.cluster.objects[LEASE, "squall", "squall-controller"]["spec"]


class Line:
    """A line to the API that can be cut, or left hanging."""

    def __init__(self, cluster):
        self.cluster, self.hangs, self.deaf = cluster, False, False

    async def get(self, *args):
        return await self._do(self.cluster.get, *args)

    async def create(self, *args):
        return await self._do(self.cluster.create, *args)

    async def patch(self, *args):
        return await self._do(self.cluster.patch, *args)

    async def watch(self, *args, **kwargs):
        async for event in self.cluster.watch(*args, **kwargs):
            if self.hangs or self.deaf:
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


async def test_a_renewal_is_one_request(hall):
    hall.candidate("one")
    hall.candidate("two")
    await hall.clock.advance(SECONDS / 3 - 1)
    hall.cluster.calls.clear()
    await hall.clock.advance(10 * SECONDS)
    assert hall.cluster.calls == [("patch", "Lease", "squall-controller")] * 30


async def test_a_released_lease_is_taken_at_once(hall):
    one = hall.candidate("one")
    await settle()
    two = hall.candidate("two")
    await settle()
    await one.release()
    assert not one.leads
    hall.tasks[0].cancel()
    await settle()
    assert two.leads
    assert hall.spec["leaseTransitions"] == 1


async def test_who_stands_by_has_nothing_to_release(hall):
    one = hall.candidate("one")
    await settle()
    two = hall.candidate("two")
    await settle()
    await two.release()
    assert one.leads
    assert hall.spec["holderIdentity"] == "one"


async def test_a_lease_that_was_deleted_is_made_again_at_once(hall):
    one = hall.candidate("one")
    await settle()
    await hall.cluster.delete(LEASE, "squall", "squall-controller")
    await settle()
    assert one.leads
    assert hall.spec["holderIdentity"] == "one"


async def test_somebody_who_labels_the_lease_changes_nothing(hall):
    line = Line(hall.cluster)
    changes: list[bool] = []
    one = hall.candidate("one", line, changed=changes.append)
    await settle()
    line.deaf = True  # the watch is cut, so the change is met when renewing
    labels = {"metadata": {"labels": {"seen": "yes"}}}
    await hall.cluster.patch(LEASE, "squall", "squall-controller", labels)
    await hall.clock.advance(SECONDS / 3)
    assert one.leads
    assert changes == [True]


async def test_a_leader_that_sees_another_one_stops_without_waiting_for_its_turn(hall):
    one = hall.candidate("one")
    await settle()
    await hall.cluster.patch(LEASE, "squall", "squall-controller", {"spec": TAKEN})
    await settle()
    assert not one.leads


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_stepped_clock_elects_nobody(hall, hours):
    one = hall.candidate("one")
    await settle()
    two = hall.candidate("two")
    await hall.clock.advance(7)
    hall.clock.step(timedelta(hours=hours))
    for _ in range(int(3 * SECONDS)):
        await hall.clock.advance(1)
        assert (one.leads, two.leads) == (True, False)
    assert hall.spec["leaseTransitions"] == 0


async def test_the_holder_s_end_is_acted_on_at_once(hall):
    pods = {"one": pod("one")}
    one = hall.candidate("one", Line(hall.cluster))
    await settle()
    two = hall.candidate("two", pod_of=pods.get)
    await settle()
    hall.tasks[0].cancel()  # killed: nothing is released
    two.look_again()
    await settle()
    assert not two.leads
    pods["one"] = pod("one", running=False)
    two.look_again()
    await settle()
    assert two.leads
    assert one is not two


async def test_a_holder_that_came_back_and_took_the_lease_again_keeps_it(hall):
    pods = {"one": pod("one")}
    hall.candidate("one")
    await settle()
    two = hall.candidate("two", pod_of=pods.get)
    await settle()
    hall.tasks[0].cancel()
    await hall.clock.advance(1)
    again = hall.candidate("one")
    await settle()
    pods["one"] = pod("one", container="containerd://2")
    two.look_again()
    await settle()
    assert (again.leads, two.leads) == (True, False)
