import asyncio
import hashlib
import os
import select
import signal
import time
from collections.abc import Callable

import pytest

from squall.errors import InvalidFault, TryAgain, Unsupported
from squall.injection.world.network import Impairment
from squall.linux.packets import Held, Lane, PacketsProcess, PacketsState
from squall.linux.tests.packet_faults import MS, SLACK_MS, drops, end, holds, on_eth0, rule
from squall.linux.tests.two_namespaces import TwoNamespaces

pytestmark = pytest.mark.host

V4, OTHER_V4, V6, OTHER_V6 = TwoNamespaces.FAR


@pytest.fixture
def net():
    made = TwoNamespaces()
    yield made
    made.close()


@pytest.fixture
async def process(net, tmp_path):
    started = await PacketsProcess.start(net.near, tmp_path / "packets", lease_seconds=5)
    yield started
    if not started.gone.is_set():
        started.close()
    end(started)


async def test_a_delay_is_felt_on_both_families_and_by_no_other_peer(net, process):
    await process.set(on_eth0(rule(Impairment(delay_us=10 * MS), f"{V4}/32", f"{V6}/128")))
    assert holds(net.one_way_ms(V4), 10)
    assert holds(net.one_way_ms(V6), 10)
    assert net.one_way_ms(OTHER_V4) < SLACK_MS
    assert net.one_way_ms(OTHER_V6) < SLACK_MS


async def test_a_rule_for_all_spares_nobody_but_neighbour_discovery(net, process):
    await process.set(on_eth0(rule(Impairment(loss=100))))
    for address in (V4, V6):
        assert net.received(address, 3) == []
    found = net.neighbours()
    assert V4 in found
    assert V6 in found


async def test_two_rules_hit_their_own_peers_and_add_up_where_both_match(net, process):
    await process.set(
        on_eth0(
            rule(Impairment(delay_us=20 * MS), "10.9.0.0/24", source="a"),
            rule(Impairment(delay_us=30 * MS), f"{OTHER_V4}/32", f"{V6}/128", source="b"),
        )
    )
    assert holds(net.one_way_ms(V4), 20)
    assert holds(net.one_way_ms(V6), 30)
    assert holds(net.one_way_ms(OTHER_V4), 50)
    counters = (await process.state()).counters
    assert counters["a"].delayed == 10
    assert counters["b"].packets == 10
    assert 20 * MS <= counters["a"].delay_us_sum / 10 < (20 + SLACK_MS) * MS


async def test_a_port_is_hit_and_its_neighbour_is_not(net, process):
    delay = Impairment(delay_us=10 * MS)
    await process.set(on_eth0(rule(delay, f"{V4}/32", f"{V6}/128", port=net.PORT)))
    assert holds(net.one_way_ms(V4), 10)
    assert holds(net.one_way_ms(V6), 10)
    await process.set(on_eth0(rule(delay, f"{V4}/32", f"{V6}/128", port=net.PORT + 1)))
    assert net.one_way_ms(V4) < SLACK_MS
    assert net.one_way_ms(V6) < SLACK_MS


async def test_a_tenth_is_lost_when_asked_and_counted(net, process):
    await process.set(on_eth0(rule(Impairment(loss=10), f"{V4}/32")))
    arrived = len(net.received(V4, 5000))
    assert 4350 < arrived < 4650  # 7 standard deviations
    counters = (await process.state()).counters["a"]
    assert (counters.packets, counters.dropped) == (5000, 5000 - arrived)


async def test_copies_come_twice_and_damage_never_reaches_the_application(net, process):
    await process.set(on_eth0(rule(Impairment(duplicate=100), f"{V4}/32")))
    assert len(net.received(V4, 100)) == 200
    await process.set(on_eth0(rule(Impairment(corrupt=100), f"{V4}/32", f"{V6}/128")))
    assert net.received(V4, 200) == []
    assert (await process.state()).counters["a"].corrupted == 200
    assert net.received(V6, 200) == []


async def test_jitter_reorders_and_a_plain_delay_does_not(net, process):
    await process.set(on_eth0(rule(Impairment(delay_us=10 * MS), f"{V4}/32")))
    arrived = net.received(V4, 500)
    assert len(arrived) == 500
    assert arrived == sorted(arrived)
    await process.set(on_eth0(rule(Impairment(delay_us=10 * MS, jitter_us=9 * MS), f"{V4}/32")))
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
    process = await PacketsProcess.start(net.near, tmp_path / "packets", lease_seconds=5)
    try:
        await process.set(on_eth0(rule(impairment)))
        sent = hashlib.shake_128(b"stream").digest(500_000)
        for address in (V4, V6):
            assert net.stream(address, sent)[0] == sent
        assert (await process.state()).unsent == 0
    finally:
        process.close()
        end(process)
        net.close()


@pytest.mark.parametrize(
    "impairment",
    [
        Impairment(rate=1_000_000),
        Impairment(bandwidth_rate=1_000_000, bandwidth_buffer=10_000, bandwidth_limit=100_000),
    ],
)
async def test_a_stream_is_no_faster_than_its_rate(net, process, impairment):
    await process.set(on_eth0(rule(impairment, f"{V4}/32")))
    arrived, seconds = net.stream(V4, bytes(400_000))
    assert len(arrived) == 400_000
    assert 0.38 < seconds < 1.5


async def test_traffic_flows_again_within_100_ms_of_a_sigkill(net, process):
    await process.set(on_eth0(rule(Impairment(delay_us=50 * MS)), nft=drops(OTHER_V4)))
    sending = asyncio.create_task(asyncio.to_thread(net.received, V4, 100, pause=0.005))
    await until(process, lambda state: state.counters["a"].packets > 20)
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.wait_for(process.gone.wait(), 5)
    lost = 100 - len(await sending)
    assert lost * 5 <= 50 + 100  # ms: what was waiting, and the gap
    assert net.one_way_ms(V4) < SLACK_MS
    assert "squall" not in net.links() + net.ruleset()


async def test_a_process_that_hangs_lets_traffic_pass(net, process):
    await process.set(on_eth0(rule(Impairment(delay_us=50 * MS))))
    os.kill(process.pid, signal.SIGSTOP)
    start = time.monotonic()
    while len(net.received(V4, 1)) == 0:
        assert time.monotonic() - start < 3
    assert net.one_way_ms(V4) < SLACK_MS
    os.kill(process.pid, signal.SIGCONT)
    await process.state()
    net.received(V4, 0)  # what was caught in the hanging process
    assert holds(net.one_way_ms(V4), 50)


async def test_it_ends_one_lease_after_its_client(net, tmp_path):
    process = await PacketsProcess.start(net.near, tmp_path / "packets", lease_seconds=60)
    await process.set(on_eth0(rule(Impairment(delay_us=10 * MS)), lease_seconds=0.5))
    fd = os.pidfd_open(process.pid)
    process.close()
    start = time.monotonic()
    assert await asyncio.to_thread(select.select, [fd], [], [], 5) == ([fd], [], [])
    os.close(fd)
    assert 0.4 < time.monotonic() - start < 2
    assert not (tmp_path / "packets").exists()
    assert "squall" not in net.links()


async def test_it_ends_at_its_deadline_though_its_client_is_there(net, process):
    start = time.clock_gettime(time.CLOCK_BOOTTIME)
    await process.set(on_eth0(nft=drops(V4), deadline=start + 0.5))
    assert V4 in net.ruleset()
    await asyncio.wait_for(process.gone.wait(), 5)
    assert 0.5 <= time.clock_gettime(time.CLOCK_BOOTTIME) - start < 2
    assert net.ruleset() == ""


async def test_a_new_agent_finds_what_the_old_one_left(net, process, tmp_path):
    held = on_eth0(
        rule(Impairment(delay_us=10 * MS, loss=12.5), f"{V4}/32", "fd09::/64", port=80),
        rule(Impairment(rate=5), source="b"),
        nft=drops(OTHER_V4),
        deadline=time.clock_gettime(time.CLOCK_BOOTTIME) + 1000.25,
    )
    await process.set(held)
    process.close()
    again = await PacketsProcess.connect(tmp_path / "packets")
    assert again is not None
    assert again.pid == process.pid
    state = await again.state()
    assert state.held == held
    assert set(state.counters) == {"a", "b"}
    assert '"counter"' in await again.list()
    await again.quit()
    assert list(tmp_path.iterdir()) == []
    assert await PacketsProcess.connect(tmp_path / "packets") is None


async def test_a_newer_client_replaces_the_older(net, process, tmp_path):
    newer = await PacketsProcess.connect(tmp_path / "packets")
    assert newer is not None
    assert (await newer.state()).held.lanes == ()
    await asyncio.wait_for(process.gone.wait(), 5)
    with pytest.raises(TryAgain):
        await process.state()
    newer.close()


async def test_the_same_again_changes_nothing(net, process):
    held = on_eth0(rule(Impairment(delay_us=10 * MS), f"{V4}/32"), nft=drops(OTHER_V4))
    await process.set(held)
    net.one_way_ms(V4)
    assert net.received(OTHER_V4, 3) == []
    before = (await process.list(), (await process.state()).counters)
    assert '"packets":3' in before[0]
    await process.set(held)
    assert (await process.list(), (await process.state()).counters) == before


async def test_packets_in_flight_survive_a_change_of_another_rule_and_the_end(net, process):
    slow = rule(Impairment(delay_us=300 * MS), f"{V4}/32")
    await process.set(on_eth0(slow))
    sending = asyncio.create_task(asyncio.to_thread(net.received, V4, 10))
    await until(process, lambda state: state.counters["a"].packets == 10)
    await process.set(on_eth0(slow, rule(Impairment(delay_us=1), f"{V6}/128", source="b")))
    await process.set(Held())
    assert len(await sending) == 10
    assert "squall" not in net.links()


@pytest.mark.parametrize(
    ("lane", "error", "says"),
    [
        (Lane("lo", (rule(Impairment(loss=1)),)), Unsupported, "lo is no Ethernet"),
        (Lane("eth9", (rule(Impairment(loss=1)),)), TryAgain, "eth9"),
        (Lane("eth0", (rule(Impairment(loss=1), "10.0.0.0/99"),)), InvalidFault, "10.0.0.0/99"),
    ],
)
async def test_a_refused_change_changes_nothing(net, process, lane, error, says):
    held = on_eth0(rule(Impairment(delay_us=10 * MS), f"{V4}/32"), nft=drops(OTHER_V4))
    await process.set(held)
    rules = net.ruleset()
    others = () if lane.device == "eth0" else held.lanes
    with pytest.raises(error, match=says):
        await process.set(Held(nft=drops(V4), lanes=(*others, lane)))
    assert (await process.state()).held == held
    assert net.ruleset() == rules
    assert holds(net.one_way_ms(V4), 10)


async def test_what_nft_refuses_leaves_no_lane_behind(net, process):
    with pytest.raises(TryAgain, match="nft"):
        await process.set(on_eth0(rule(Impairment(loss=100)), nft="no such command"))
    assert "squall" not in net.links()
    assert len(net.received(V4, 3)) == 3


async def test_without_a_namespace_it_says_so(tmp_path):
    with pytest.raises(TryAgain, match="/run/netns/squall-not-there"):
        await PacketsProcess.start(
            "/run/netns/squall-not-there", tmp_path / "packets", lease_seconds=1
        )


async def until(process: PacketsProcess, happens: Callable[[PacketsState], bool]) -> None:
    async with asyncio.timeout(5):
        while not happens(await process.state()):  # noqa: ASYNC110  (asks another process)
            await asyncio.sleep(0.001)  # the kernel gives no event for it
