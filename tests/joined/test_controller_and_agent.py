"""The real controller and the real agent on one API in memory, with walls to paint."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from squall.api.cluster import HALT, NODE, NODE_FAULT, POD
from squall.api.experiment import ExperimentSpec
from squall.clock import settle
from squall.controller.loop import Controller
from squall.node.tests.bench import LEASE_SECONDS, Bench
from squall.node.tests.paint import PAINT, PaintFault


class PaintExperiment(ExperimentSpec):
    color: str = "red"


KIND = replace(PAINT, spec=PaintExperiment, share=lambda spec, *_: PaintFault(color=spec.color))


class House(Bench):
    """A bench whose NodeFaults are written by a controller."""

    control: asyncio.Task[None] | None = None
    kind = KIND

    async def open(self):
        await self.cluster.create(NODE, {"metadata": {"name": "n1"}})
        await self.start()
        await self.lead()

    async def lead(self):
        controller = Controller(
            self.cluster, self.clock, {"PaintChaos": self.kind},
            lease_seconds=LEASE_SECONDS, identity="c", registry=CollectorRegistry(),
        )  # fmt: skip
        self.control = asyncio.create_task(controller.run())
        await self.rest()

    async def resign(self):
        self.control.cancel()
        await asyncio.gather(self.control, return_exceptions=True)

    async def runs(self, name="web", turn=1):
        """Let a pod run in its n-th container."""
        await self.pod(name, f"{name}-{turn}")
        key = (POD, "default", name)
        whole = self.cluster.objects[key]
        spec = whole["spec"] | {"containers": [{"name": "main"}]}
        status = whole["status"] | {"phase": "Running"}
        self.cluster._store(key, whole | {"spec": spec, "status": status}, "MODIFIED")
        await self.rest()

    async def apply(self, name="x", **spec):
        wanted = {"selector": {}, "mode": "all"} | spec
        meta = {"name": name, "namespace": "default"}
        await self.cluster.create(KIND.resource, {"metadata": meta, "spec": wanted})
        await self.rest()

    async def drop(self, name="x"):
        self.cluster.now = self.clock.now()
        await self.cluster.delete(KIND.resource, "default", name)
        await self.rest()

    async def annotate(self, name, key, value):
        change = {"metadata": {"annotations": {key: value}}}
        await self.cluster.patch(KIND.resource, "default", name, change)
        await self.rest()

    def there(self, name="x"):
        return (KIND.resource, "default", name) in self.cluster.objects

    def phases(self, name="x"):
        status = self.cluster.objects[KIND.resource, "default", name]["status"]
        return [r["phase"] for r in status["experiment"].get("containerRecords", [])]

    def holds(self, condition, name="x"):
        status = self.cluster.objects[KIND.resource, "default", name]["status"]
        return {c["type"]: c["status"] == "True" for c in status["conditions"]}[condition]

    async def let(self, seconds):
        await self.pass_seconds(seconds, renewing=False)

    async def close(self):
        await self.resign()
        await super().close()


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path)
    await house.runs()
    await house.open()
    yield house
    await house.close()


async def test_a_fault_is_injected_proved_shown_and_taken_back(house):
    await house.apply()
    await house.let(1)
    assert house.colors() == ["red"]
    assert house.holds("AllInjected")
    record = house.cluster.objects[KIND.resource, "default", "x"]["status"]["experiment"]
    assert record["containerRecords"][0]["proof"]["verdict"] == "Confirmed"
    await house.drop()
    assert house.colors() == []
    assert not house.there()
    assert not [key for key in house.cluster.objects if key[0] == NODE_FAULT]
    assert house.journal.touched() == []


async def test_faults_last_as_long_as_the_controller_lives(house):
    await house.apply()
    await house.let(5 * LEASE_SECONDS)
    assert house.colors() == ["red"]
    await house.resign()
    await house.let(LEASE_SECONDS + 1)
    assert house.colors() == []
    await house.lead()
    await house.let(2)
    assert house.colors() == []
    assert house.phases() == ["Not Injected"]
    await house.annotate("x", "experiment.chaos-mesh.org/pause", "true")
    await house.annotate("x", "experiment.chaos-mesh.org/pause", None)
    assert house.colors() == ["red"]


async def test_a_controller_that_comes_back_in_time_changes_nothing(house):
    await house.apply()
    await house.resign()
    await house.let(LEASE_SECONDS / 2)
    await house.lead()
    await house.let(LEASE_SECONDS)
    assert house.colors() == ["red"]
    assert house.phases() == ["Injected"]


async def test_time_up_is_no_interruption(house):
    await house.apply(duration="5s")
    await house.let(2)
    assert house.colors() == ["red"]
    await house.let(5)
    assert house.colors() == []
    assert house.holds("AllRecovered")
    status = house.cluster.objects[KIND.resource, "default", "x"]["status"]["experiment"]
    assert status["containerRecords"][0]["proof"]["verdict"] == "Confirmed"


async def test_a_halt_stops_for_good(house):
    await house.apply()
    await house.cluster.create(HALT, {"metadata": {"name": "h"}, "spec": {"reason": "outage"}})
    await house.rest()
    await house.let(2)
    assert house.colors() == []
    await house.cluster.delete(HALT, None, "h")
    await house.let(5)
    assert house.colors() == []
    assert house.holds("AllRecovered")
    await house.drop()
    assert not house.there()


async def test_a_dead_agent_does_not_hold_up_a_delete(house):
    await house.apply()
    await house.kill()
    await house.drop()
    await house.let(LEASE_SECONDS + 9)
    assert house.there()
    await house.let(2)
    assert not house.there()
    await house.start()
    assert house.colors() == []


async def test_a_restarted_container_is_followed_and_clean_at_the_end(house):
    await house.apply(selection="live")
    for turn in range(2, 6):
        await house.end_container(f"web-{turn - 1}")
        house.walls.coats.clear()
        await house.runs(turn=turn)
        assert house.colors() == ["red"]
    await house.drop()
    assert house.colors() == []
    assert not house.there()


async def test_a_live_selection_gives_back_what_it_leaves(house):
    await house.apply(selection="live", mode="fixed-percent", value="50")
    await house.runs("web-a")
    await house.runs("web-b")
    await house.let(2)
    assert sorted(house.phases()) == ["Injected", "Injected"]
    await house.cluster.delete(POD, "default", "web-a")
    await house.rest()
    await house.let(2)
    painted = [name for name in ("web", "web-b") if house.colors(name)]
    assert len(painted) == 1


async def test_a_delete_while_the_agent_is_still_injecting_waits_for_it(house):
    gate = house.walls.stuck["default/web"] = asyncio.Event()
    await house.apply()
    await house.drop()
    await house.let(1)
    assert house.there()
    gate.set()
    await house.rest()
    await house.let(1)
    assert house.colors() == []
    assert not house.there()


async def test_one_shot_actions_strike_once_whatever_restarts(house):
    await house.resign()
    house.kind = replace(KIND, one_shot=lambda _: True)
    await house.lead()
    await house.apply()
    assert house.walls.struck == ["default/web"]
    assert house.phases() == ["Injected"]
    await house.restart()
    await house.resign()
    await house.lead()
    await house.let(3)
    assert house.walls.struck == ["default/web"]
    assert house.phases() == ["Injected"]
    await house.drop()
    assert not house.there()


@pytest.mark.parametrize("seed", range(6))
async def test_whoever_dies_whenever_the_end_is_clean(house, seed):
    await house.runs("db")
    for turn in range(12):
        match (seed * 7 + turn * 5) % 6:
            case 0:
                await house.resign()
                await house.lead()
            case 1:
                await house.restart()
            case 2 if not house.there("a"):
                await house.apply("a", color="blue")
            case 3 if not house.there("b"):
                await house.apply("b", selection="live", mode="one")
            case 4 if house.there("a"):
                await house.drop("a")
            case _:
                await house.let(1)
    for name in "ab":
        if house.there(name):
            await house.drop(name)
    await house.let(2)
    assert not house.there("a")
    assert not house.there("b")
    assert (house.colors("web"), house.colors("db")) == ([], [])
    await settle()
