"""The laws of the HTTP room, and its proof, on this kernel."""

import asyncio
from contextlib import closing
from dataclasses import dataclass

import pytest

from squall.faults import kinds
from squall.injection.contract import Live, Verdict, Way
from squall.injection.kind import load
from squall.injection.laws import Ground, Laws, Notes
from squall.injection.world import World
from squall.linux.clock import SystemClock
from squall.linux.exchanges import LinuxHttp
from squall.linux.tests.conftest import LEASE_SECONDS, PORT, Cables
from squall.linux.tests.echoing import serving
from squall.linux.tests.test_exchanges import client

pytestmark = pytest.mark.host

KIND = kinds()["HTTPChaos"]
CLOCK = SystemClock()
THEIRS = "table inet theirs { chain c { type filter hook input priority 0; counter; } ; }"


def live(source="a/.", **asked):
    return Live(source, KIND.fault.model_validate({"target": "Request", "port": PORT} | asked))


SLOW = live(delay="20ms")
GONE = live("b/.", abort=True, path="/gone")
OUT = live("c/.", target="Response", outgoing=True, port=81, replace={"code": 500})
LIVES = [[SLOW], [SLOW, GONE, OUT], [GONE, OUT]]


@dataclass
class RealPart:
    """The network namespace of a target as it is: rules, devices, who listens."""

    cables: Cables

    def snapshot(self):
        # Neither addresses nor states of devices: IPv6 settles by itself in its first second.
        inside = self.cables.target
        listening = self.cables.run(inside, "ss", "-Hltn").splitlines()
        devices = self.cables.run(inside, "ip", "-o", "link").splitlines()
        rules = self.cables.run(inside, "nft", "--stateless", "list", "ruleset")
        return [
            rules,
            self.cables.run(inside, "tc", "-j", "qdisc", "show"),
            sorted(line.split()[3] for line in listening),
            sorted(line.split()[1] for line in devices),
        ]

    def foreign(self):
        return self.cables.run(self.cables.target, "nft", "-s", "list", "table", "inet", "theirs")


@pytest.fixture
async def http(tmp_path):
    adapter = LinuxHttp(tmp_path / "http", lease_seconds=LEASE_SECONDS)
    yield adapter
    await adapter.end_all()


@pytest.fixture
def world(http):
    return World(CLOCK, None, None, None, None, http=http)


@pytest.fixture
def laws(cables, world):
    cables.run(cables.target, "nft", f"add {THEIRS}")
    with serving(cables.target, PORT):
        yield Laws(load(KIND.injector), lambda: Ground(world, [RealPart(cables)]), cables.target)


async def test_untouched_stays_untouched(laws):
    await laws.untouched_stays_untouched()


async def test_twice_is_once(laws):
    await laws.twice_is_once(LIVES[1])


async def test_an_empty_list_gives_back_what_was_there(laws):
    await laws.empty_gives_back_what_was_there(LIVES)


async def test_foreign_marks_are_left_alone(laws):
    await laws.foreign_marks_are_left_alone(LIVES)


async def measured(world, target, wanted):
    injector, probe = load(KIND.injector)(world), load(KIND.probe)(world)
    before = await probe.sample(target, wanted)
    await injector.converge(target, [wanted], Notes())
    during = await probe.sample(target, wanted)
    return probe.judge(wanted.fault, before, during), during


@pytest.mark.parametrize(
    "wanted",
    [
        live(delay="50ms"),
        live(abort=True),
        live(target="Response", path="/a/*", replace={"code": 503}),
    ],
    ids=["delay", "abort", "replace"],
)
async def test_without_traffic_a_request_of_ours_proves_a_fault(cables, world, wanted):
    with serving(cables.target, PORT):
        judged, sample = await measured(world, cables.target, wanted)
    assert (judged.verdict, sample.way) == (Verdict.CONFIRMED, Way.ACTIVE), judged.measured


async def test_traffic_proves_a_fault_by_itself(cables, world):
    stop = asyncio.Event()

    async def go_on():
        while not stop.is_set():
            with closing(await client(cables)) as connection:
                await asyncio.to_thread(connection.ask, "POST", "/a")

    with serving(cables.target, PORT):
        visits = asyncio.create_task(go_on())
        judged, sample = await measured(world, cables.target, live(delay="20ms", method="POST"))
        stop.set()  # not cancelled: a socket that is being opened would be nobody's
        await visits
    assert (judged.verdict, sample.way) == (Verdict.CONFIRMED, Way.PASSIVE), judged.measured
    assert sample.values["matched"] >= 3


async def test_without_traffic_and_a_server_nothing_is_said(cables, world):
    judged, _ = await measured(world, cables.target, live(abort=True))
    assert (judged.verdict, judged.measured) == (Verdict.INCONCLUSIVE, "no request came (passive)")
