"""The network room where netem is the means: the laws of its injector, and what its probe says."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from squall.faults import kinds
from squall.injection.contract import Live, Verdict, Way
from squall.injection.kind import load
from squall.injection.laws import Ground, Laws, Notes
from squall.injection.world import World
from squall.linux.clock import SystemClock
from squall.linux.network import LinuxNetwork
from squall.linux.tests.conftest import FAR, Cables
from tests.kernel.traffic import send

pytestmark = pytest.mark.kernel

KIND = kinds()["NetworkChaos"]
PEERS = [{"host": f"{FAR[4]}/32"}]
THEIRS = "table inet theirs { chain c { type filter hook output priority 5; udp dport 9 drop; }; }"


def live(source="a/.", **impairment):
    shape = {"peers": PEERS, "impairment": impairment}
    return Live(source, KIND.fault.model_validate({"action": "netem", "shape": shape}))


def cut(source="c/."):
    cuts = [{"way": "out", "peers": [{"host": f"{FAR[6]}/128"}]}]
    return Live(source, KIND.fault.model_validate({"action": "partition", "cuts": cuts}))


LIVES = [
    [live(delay_us=20_000)],
    [live(delay_us=20_000), live("b/.", loss=20.0), cut()],
    [live("b/.", rate=500_000)],
]


@dataclass
class RealPart:
    """The target's network as it is."""

    cables: Cables

    def snapshot(self):
        return self.cables.snapshot()

    def foreign(self):
        table = self.cables.run(self.cables.target, "nft", "-a", "list", "table", "inet", "theirs")
        return table + self.cables.run(self.cables.target, "tc", "qdisc", "show", "dev", "eth1")


@pytest.fixture
def world(network):
    return World(SystemClock(), network, None, None, None)


@pytest.fixture
def laws(cables, world):
    cables.run(cables.target, "nft", f"add {THEIRS}")
    bucket = ("handle", "7:", "tbf", "rate", "1mbit", "burst", "9k", "limit", "9k")
    cables.run(cables.target, "tc", "qdisc", "add", "dev", "eth1", "root", *bucket)
    return Laws(load(KIND.injector), lambda: Ground(world, [RealPart(cables)]), cables.target)


async def test_untouched_stays_untouched(laws):
    await laws.untouched_stays_untouched()


async def test_twice_is_once(laws):
    await laws.twice_is_once(LIVES[1])


async def test_an_empty_list_gives_back_what_was_there(laws):
    await laws.empty_gives_back_what_was_there(LIVES)


async def test_only_the_last_list_counts(laws):
    await laws.only_the_last_counts(LIVES)


async def test_foreign_marks_are_left_alone(laws):
    await laws.foreign_marks_are_left_alone(LIVES)


async def test_a_killed_holder_fails_open_and_is_repaired_by_a_fresh_agent(
    cables, network, shaping, world, tmp_path
):
    injector, wanted = load(KIND.injector), [live(delay_us=50_000), cut()]
    await injector(world).converge(cables.target, wanted, Notes())
    [hold] = network._holders._holds.values()
    os.kill(hold.process.pid, signal.SIGKILL)
    await hold.process.gone.wait()
    rules = cables.run(cables.target, "nft", "list", "ruleset")
    assert rules == ""
    assert await median_ms(network, cables) < 10

    fresh = LinuxNetwork(tmp_path / "packets", lease_seconds=2, shaping=shaping)
    world = World(SystemClock(), fresh, None, None, None)
    await injector(world).converge(cables.target, wanted, Notes())
    assert await median_ms(fresh, cables) == pytest.approx(50, rel=0.1)
    await injector(world).converge(cables.target, [], Notes())
    assert '"prio"' not in cables.snapshot()
    await fresh.close()


async def median_ms(network, cables):
    pinged = await network.ping(cables.target, FAR[4], count=5, within_seconds=1)
    return sorted(pinged.rtt_ms)[2]


@asynccontextmanager
async def traffic(cables):
    """Let the target send some hundred packets a second, more than a limit lets through."""

    enough = asyncio.Event()

    async def go_on():
        while not enough.is_set():
            await send(cables, 4, 100, size=1000, pause_seconds=0.01)

    sending = asyncio.create_task(go_on())
    try:
        yield
    finally:
        enough.set()  # not cancelled: a socket that is being opened would be nobody's
        await sending


@pytest.mark.parametrize(
    ("impairment", "ways"),
    [
        ({"delay_us": 50_000}, {Way.ACTIVE}),
        ({"loss": 30.0}, {Way.PASSIVE, Way.ACTIVE}),
        ({"rate": 50_000}, {Way.PASSIVE, Way.ACTIVE}),
        ({"delay_us": 50_000, "loss": 20.0}, {Way.ACTIVE}),
    ],
)
async def test_the_probe_confirms_what_qdiscs_count(cables, world, tell, impairment, ways):
    probe, one = load(KIND.probe)(world), live(**impairment)
    before = await probe.sample(cables.target, one)
    await load(KIND.injector)(world).converge(cables.target, [one], Notes())
    async with traffic(cables):
        during = await probe.sample(cables.target, one)
    judgement = probe.judge(one.fault, before, during)
    tell(f"probe: asked {judgement.asked}; measured {judgement.measured}")
    assert judgement.verdict is Verdict.CONFIRMED, judgement
    assert during.way in ways
