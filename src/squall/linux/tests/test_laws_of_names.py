"""The laws of the room of names on this kernel, and its faults together with those of packets."""

import asyncio
import random
from dataclasses import dataclass

import pytest

from squall.faults import kinds
from squall.injection.contract import Live
from squall.injection.kind import load
from squall.injection.laws import Ground, Laws, Notes
from squall.injection.world import NOWHERE, World
from squall.linux.clock import SystemClock
from squall.linux.name_faults import LinuxNames
from squall.linux.tests.conftest import FAR, LEASE_SECONDS, Cables
from squall.linux.tests.name_server import ADDRESS, asked, says, serving

pytestmark = [pytest.mark.host]

NAMES, PACKETS = kinds()["DNSChaos"], kinds()["NetworkChaos"]
NAME = "a.example"
FOREIGN = "table inet theirs { chain output { type filter hook output priority 0; counter; }; }"


def dns(source, **spec):
    spec = {"mode": "all", "selector": {}, "action": "error", **spec}
    return Live(source, NAMES.share(NAMES.spec.model_validate(spec), ".", {}))


A, B = dns("a/.", patterns=["*.example"]), dns("b/.", action="random", percent=50)


@dataclass
class RealPart:
    """Rules, queues and processes of one target, ours and theirs."""

    cables: Cables

    def snapshot(self):
        enter = self.cables.run
        queues = enter(self.cables.target, "cat", "/proc/net/netfilter/nfnetlink_queue")
        rules = self.cables.snapshot().replace(_port(self.cables.snapshot()), "PORT")
        return rules, [line.split()[0] for line in queues.splitlines()]

    def foreign(self):
        return self.cables.run(self.cables.target, "nft", "list", "table", "inet", "theirs")


def _port(rules):
    """The port that a holder listens at is another one each time."""
    return rules.partition("redirect to :")[2].partition("\n")[0] or "no port"


@pytest.fixture
async def world(cables, network, tmp_path):
    cables.run(cables.target, "nft", FOREIGN)
    names = LinuxNames(tmp_path / "dns", lease_seconds=LEASE_SECONDS)
    yield World(SystemClock(), network, NOWHERE, NOWHERE, NOWHERE, names=names)
    await names.end_all()


@pytest.fixture
def laws(cables, world):
    ground = Ground(world, [RealPart(cables)])
    return Laws(load(NAMES.injector), lambda: ground, cables.target)


async def test_untouched_stays_untouched(laws):
    await laws.untouched_stays_untouched()


async def test_twice_is_once(laws):
    await laws.twice_is_once([A, B])


async def test_an_empty_list_gives_back_what_was_there(laws):
    await laws.empty_gives_back_what_was_there([[A], [A, B], [B]])


async def test_only_the_last_list_counts(laws):
    await laws.only_the_last_counts([[A], [A, B], [B]])


async def test_foreign_marks_are_left_alone(laws):
    await laws.foreign_marks_are_left_alone([[A], [A, B], [B]])


@pytest.mark.parametrize("seed", range(4))
async def test_faults_in_names_and_in_packets_peel_off_one_target_in_any_order(cables, world, seed):
    before = RealPart(cables).snapshot()
    injectors = {kind.resource.kind: load(kind.injector)(world) for kind in (NAMES, PACKETS)}
    delay = {"mode": "all", "selector": {}, "action": "delay", "delay": {"latency": "60ms"}}
    cut = {"mode": "all", "selector": {}, "action": "partition", "externalTargets": [FAR[6]]}
    live = {
        "DNSChaos": [A, dns("b/.", patterns=["b.example"], error="NXDOMAIN")],
        "NetworkChaos": [
            Live(f"{at}/.", PACKETS.share(PACKETS.spec.model_validate(spec), ".", {}))
            for at, spec in enumerate((delay, cut))
        ],
    }
    order = [(kind, one) for kind, all_ in live.items() for one in all_]
    random.Random(seed).shuffle(order)  # noqa: S311  (nothing secret)
    with serving(cables.peer, FAR[4]):
        for gone in (None, *order):
            if gone:
                live[gone[0]].remove(gone[1])
            for kind, injector in injectors.items():
                await injector.converge(cables.target, live[kind], Notes())
            fails = any(one.source == "a/." for one in live["DNSChaos"])
            assert says(asked(cables.target, FAR[4], NAME)) == ("SERVFAIL" if fails else ADDRESS)
            began = asyncio.get_running_loop().time()
            assert says(asked(cables.target, FAR[4], "b.org")) == ADDRESS
            took = asyncio.get_running_loop().time() - began
            slow = any(one.fault.action == "delay" for one in live["NetworkChaos"])
            assert (took >= 0.06) is slow
    assert RealPart(cables).snapshot() == before


async def test_the_probe_confirms_what_is_felt_here(cables, world):
    probe = load(NAMES.probe)(world)
    fault = dns("a/.", patterns=["*.example"], error="NXDOMAIN", delay="20ms")
    await load(NAMES.injector)(world).converge(cables.target, [fault], Notes())
    with serving(cables.peer, FAR[4]):
        sampling = asyncio.create_task(probe.sample(cables.target, fault))
        await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.to_thread(asked, cables.target, FAR[4], NAME)
        judgement = probe.judge(fault.fault, None, await sampling)
    assert judgement.verdict == "Confirmed", judgement
    assert judgement.asked == "NXDOMAIN, 20 ms late, for *.example"
    assert "(passive)" in judgement.measured
