"""Shapes by the kernel's own qdiscs: each measured from outside, alone and stacked."""

import json
from math import sqrt

import pytest

from squall.injection.world.network import Impairment, NetworkState, Peers, Shape
from squall.linux import capabilities
from squall.linux.qdiscs import Qdiscs
from squall.linux.tests.conftest import FAR, SPARE
from tests.kernel.traffic import send

pytestmark = pytest.mark.kernel

COUNT = 1000
SIGMAS = 4
versions = pytest.mark.parametrize("version", [4, 6])


def shape(version, source="a/.", **impairment):
    peer = f"{FAR[version]}/{32 if version == 4 else 128}"
    return Shape(source, (Peers(peer),), Impairment(**impairment))


async def shaped(cables, network, *shapes):
    """Put shapes in force, once the peer's link address is known."""
    for address in FAR.values():
        assert (await network.ping(cables.target, address, count=1, within_seconds=2)).received
    await network.apply(cables.target, NetworkState(shapes=shapes))
    assert (await network.state(cables.target)).shapes == shapes


async def round_trips(cables, network, address, count=20):
    pinged = await network.ping(cables.target, address, count=count, within_seconds=3)
    assert pinged.received == count
    return sorted(pinged.rtt_ms)


def probable(seen, of, share):
    """Is that many within four deviations of what draws with this share give?"""
    return abs(seen - of * share) <= SIGMAS * sqrt(of * share * (1 - share))


async def test_netem_is_chosen_here():
    assert isinstance(await capabilities.shaping(), Qdiscs)


@versions
@pytest.mark.parametrize("delay_ms", [10, 100])
async def test_a_delay_is_exact_to_a_tenth(cables, network, tell, version, delay_ms):
    await shaped(cables, network, shape(version, delay_us=delay_ms * 1000))
    rtt_ms = await round_trips(cables, network, FAR[version])
    tell(f"delay {delay_ms} ms, IPv{version}: median {rtt_ms[10]:.2f}, least {rtt_ms[0]:.2f} ms")
    # The least, for a processor that is busy adds to the others.
    assert rtt_ms[0] == pytest.approx(delay_ms, rel=0.1)
    assert rtt_ms[10] < delay_ms * 1.1 + 2
    assert (await round_trips(cables, network, SPARE[version], 5))[2] < delay_ms / 2


async def test_jitter_spreads_evenly(cables, network, tell):
    await shaped(cables, network, shape(4, delay_us=50_000, jitter_us=20_000))
    rtt_ms = await round_trips(cables, network, FAR[4], 100)
    tell(f"delay 50 ± 20 ms: {rtt_ms[0]:.1f} to {rtt_ms[-1]:.1f}, median {rtt_ms[50]:.1f} ms")
    assert 29.5 < rtt_ms[0] < 36
    assert 64 < rtt_ms[-4] < 74
    assert rtt_ms[50] == pytest.approx(50, abs=SIGMAS * 20 / sqrt(3 * 100) * 1.5)


@versions
async def test_loss_is_probable(cables, network, tell, version):
    await shaped(cables, network, shape(version, loss=30))
    arrived = await send(cables, version, COUNT)
    lost = COUNT - len(arrived.packets)
    tell(f"loss 30 %, IPv{version}: {100 * lost / COUNT:.1f} % of {COUNT}")
    assert probable(lost, COUNT, 0.3)
    assert (await network.counters(cables.target))["a/."].dropped == lost


@versions
async def test_duplicates_are_probable(cables, network, tell, version):
    await shaped(cables, network, shape(version, duplicate=20))
    arrived = await send(cables, version, COUNT)
    more = len(arrived.packets) - COUNT
    tell(f"duplicate 20 %, IPv{version}: {100 * more / COUNT:.1f} % of {COUNT}")
    assert probable(more, COUNT, 0.2)
    assert set(arrived.intact) == set(range(COUNT))


@versions
async def test_damage_is_probable(cables, network, tell, version):
    await shaped(cables, network, shape(version, corrupt=20))
    arrived = await send(cables, version, COUNT)
    # One bit is turned: in a header or under a checksum, and the packet is lost; or where the
    # virtual cable checks nothing, and it arrives changed.
    hurt = COUNT - len(set(arrived.intact) & set(range(COUNT)))
    tell(f"corrupt 20 %, IPv{version}: {100 * hurt / COUNT:.1f} % of {COUNT}")
    assert hurt > 0.1 * COUNT
    assert hurt <= 0.2 * COUNT + SIGMAS * sqrt(COUNT * 0.2 * 0.8)


async def test_reordered_packets_overtake(cables, network, tell):
    await shaped(cables, network, shape(4, delay_us=20_000, reorder=25, reorder_gap=1))
    pinged = await network.ping(cables.target, FAR[4], count=200, within_seconds=5)
    early = sum(rtt < 10 for rtt in pinged.rtt_ms)
    tell(f"reorder 25 %: {100 * early / 200:.1f} % of 200")
    assert probable(early, 200, 0.25)


@versions
@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("rate", {"rate": 500_000}),
        (
            "bandwidth",
            {"bandwidth_rate": 500_000, "bandwidth_buffer": 5000, "bandwidth_limit": 10**6},
        ),
    ],
)
async def test_a_speed_is_exact_to_a_tenth(cables, network, tell, version, name, asked):
    await shaped(cables, network, shape(version, **asked))
    arrived = await send(cables, version, 300, size=1000, pause_seconds=0)
    speed = arrived.bytes_per_second / 1000
    tell(f"{name} 500 kB/s, IPv{version}: {speed:.0f} kB/s")
    assert len(arrived.packets) == 300
    assert speed == pytest.approx(500, rel=0.1)


@pytest.mark.parametrize("stays", ["a/.", "b/."])
async def test_stacked_shapes_peel_off_in_either_order(cables, network, tell, stays):
    before = qdiscs_and_rules(cables)
    late, lossy = shape(4, "a/.", delay_us=40_000), shape(4, "b/.", loss=30)
    await shaped(cables, network, late)
    await shaped(cables, network, late, lossy)
    rtt_ms, lost = await felt(cables, network)
    tell(f"40 ms and 30 % stacked: {rtt_ms:.1f} ms, {100 * lost:.1f} % of 200")
    assert rtt_ms == pytest.approx(40, rel=0.1)
    assert probable(200 * lost, 200, 0.3)

    await shaped(cables, network, late if stays == "a/." else lossy)
    rtt_ms, lost = await felt(cables, network)
    tell(f"after one of them was taken away ({stays} stays): {rtt_ms:.1f} ms, {100 * lost:.1f} %")
    assert (rtt_ms > 35) == (stays == "a/.")
    assert (lost > 0) == (stays == "b/.")

    await shaped(cables, network)
    rtt_ms, lost = await felt(cables, network)
    assert rtt_ms < 10
    assert lost == 0
    assert qdiscs_and_rules(cables) == before


async def felt(cables, network):
    """Median round trip, and share of lost pings."""
    pinged = await network.ping(cables.target, FAR[4], count=200, within_seconds=2)
    return sorted(pinged.rtt_ms)[pinged.received // 2], 1 - pinged.received / 200


def qdiscs_and_rules(cables):
    """Read every qdisc and rule of the target."""
    listed = cables.run(cables.target, "tc", "-j", "qdisc", "show")
    return json.loads(listed), cables.run(cables.target, "nft", "list", "ruleset")
