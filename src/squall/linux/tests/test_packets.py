import asyncio
import hashlib
import os
import signal

import pytest

from squall.injection.world.network import Impairment
from squall.linux.packets import Held, Lane, PacketsProcess
from squall.linux.tests.packet_faults import MS, SLACK_MS, end, holds, on_eth0, rule
from squall.linux.tests.two_namespaces import TwoNamespaces

pytestmark = pytest.mark.host

V4, OTHER_V4, V6, OTHER_V6 = TwoNamespaces.FAR


async def test_a_delay_is_felt_on_both_families_and_by_no_other_peer(net, packets):
    await packets.set(on_eth0(rule(Impairment(delay_us=10 * MS), f"{V4}/32", f"{V6}/128")))
    assert holds(net.one_way_ms(V4), 10)
    assert holds(net.one_way_ms(V6), 10)
    assert net.one_way_ms(OTHER_V4) < SLACK_MS
    assert net.one_way_ms(OTHER_V6) < SLACK_MS


async def test_a_rule_for_all_spares_nobody_but_neighbour_discovery(net, packets):
    await packets.set(on_eth0(rule(Impairment(loss=100))))
    for address in (V4, V6):
        assert net.received(address, 3) == []
    found = net.neighbours()
    assert V4 in found
    assert V6 in found


@pytest.mark.parametrize(("all_of_it", "hit", "spared"), [("0.0.0.0/0", V4, V6), ("::/0", V6, V4)])
async def test_all_of_one_family_is_nothing_of_the_other(net, packets, all_of_it, hit, spared):
    await packets.set(on_eth0(rule(Impairment(delay_us=10 * MS), all_of_it)))
    assert holds(net.one_way_ms(hit), 10)
    assert net.one_way_ms(spared) < SLACK_MS


async def test_two_rules_hit_their_own_peers_and_add_up_where_both_match(net, packets):
    await packets.set(
        on_eth0(
            rule(Impairment(delay_us=20 * MS), "10.9.0.0/24", source="a"),
            rule(Impairment(delay_us=30 * MS), f"{OTHER_V4}/32", f"{V6}/128", source="b"),
        )
    )
    assert holds(net.one_way_ms(V4), 20)
    assert holds(net.one_way_ms(V6), 30)
    assert holds(net.one_way_ms(OTHER_V4), 50)
    counters = (await packets.state()).counters
    assert counters["a"].delayed == 10
    assert counters["b"].packets == 10
    assert 20 * MS <= counters["a"].delay_us_sum / 10 < (20 + SLACK_MS) * MS


async def test_a_port_is_hit_and_its_neighbour_is_not(net, packets):
    delay = Impairment(delay_us=10 * MS)
    await packets.set(on_eth0(rule(delay, f"{V4}/32", f"{V6}/128", port=net.PORT)))
    assert holds(net.one_way_ms(V4), 10)
    assert holds(net.one_way_ms(V6), 10)
    await packets.set(on_eth0(rule(delay, f"{V4}/32", f"{V6}/128", port=net.PORT + 1)))
    assert net.one_way_ms(V4) < SLACK_MS
    assert net.one_way_ms(V6) < SLACK_MS


async def test_a_tenth_is_lost_when_asked_and_counted(net, packets):
    await packets.set(on_eth0(rule(Impairment(loss=10), f"{V4}/32")))
    arrived = len(net.received(V4, 5000))
    assert 4350 < arrived < 4650  # 7 standard deviations
    counters = (await packets.state()).counters["a"]
    assert (counters.packets, counters.dropped) == (5000, 5000 - arrived)


async def test_all_come_twice_when_doubled(net, packets):
    await packets.set(on_eth0(rule(Impairment(duplicate=100), f"{V4}/32")))
    assert len(net.received(V4, 100)) == 200


async def test_damage_is_noticed_by_the_receiver_as_on_a_wire(net, packets):
    await packets.set(on_eth0(rule(Impairment(corrupt=100), f"{V4}/32", f"{V6}/128")))
    assert net.received(V4, 200) == []
    assert (await packets.state()).counters["a"].corrupted == 200
    assert net.received(V6, 200) == []


async def test_jitter_reorders_and_a_plain_delay_does_not(net, packets):
    await packets.set(on_eth0(rule(Impairment(delay_us=10 * MS), f"{V4}/32")))
    arrived = net.received(V4, 500)
    assert len(arrived) == 500
    assert arrived == sorted(arrived)
    await packets.set(on_eth0(rule(Impairment(delay_us=10 * MS, jitter_us=9 * MS), f"{V4}/32")))
    arrived = net.received(V4, 500)
    assert len(arrived) == 500
    assert arrived != sorted(arrived)


@pytest.mark.parametrize("mtu", [1500, 9000])
@pytest.mark.parametrize(
    "impairment",
    [
        Impairment(delay_us=2 * MS),
        Impairment(loss=1, corrupt=1, duplicate=1),
        Impairment(delay_us=2 * MS, jitter_us=1 * MS, reorder=20),
    ],
)
async def test_a_stream_arrives_whole_through(mtu, impairment, tmp_path):
    net = TwoNamespaces(mtu)
    packets = await PacketsProcess.start(net.near, tmp_path / "packets", lease_seconds=5)
    try:
        await packets.set(on_eth0(rule(impairment)))
        sent = hashlib.shake_128(b"stream").digest(500_000)
        for address in (V4, V6):
            assert net.stream(address, sent)[0] == sent
        assert (await packets.state()).unsent == 0
    finally:
        packets.close()
        end(packets)
        net.close()


@pytest.mark.parametrize(
    "impairment",
    [
        Impairment(rate=1_000_000),
        Impairment(bandwidth_rate=1_000_000, bandwidth_buffer=10_000, bandwidth_limit=100_000),
    ],
)
async def test_a_stream_is_no_faster_than_its_rate(net, packets, impairment):
    await packets.set(on_eth0(rule(impairment, f"{V4}/32")))
    arrived, seconds = net.stream(V4, bytes(400_000))
    assert len(arrived) == 400_000
    assert 0.38 < seconds < 1.5


async def test_two_devices_are_impaired_each_by_its_own_rules(net, packets):
    net.add_device("extra")
    eth0 = on_eth0(rule(Impairment(delay_us=10 * MS), f"{V4}/32")).lanes
    extra = Lane("extra", (rule(Impairment(loss=100), source="b"),))
    await packets.set(Held(lanes=(*eth0, extra)))
    assert net.links().count("squall") == 2
    assert holds(net.one_way_ms(V4), 10)
    await packets.set(Held(lanes=(extra,)))
    assert net.links().count("squall") == 1
    assert net.one_way_ms(V4) < SLACK_MS
    os.kill(packets.pid, signal.SIGKILL)
    await asyncio.wait_for(packets.gone.wait(), 5)
    assert "squall" not in net.links()
