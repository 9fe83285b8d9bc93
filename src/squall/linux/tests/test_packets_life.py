import asyncio
import os
import select
import signal
import time

import pytest

from squall.errors import InvalidFault, TryAgain, Unsupported
from squall.injection.world.network import Impairment
from squall.linux.packets import Held, Lane, PacketsProcess
from squall.linux.tests.packet_faults import MS, SLACK_MS, drops, holds, on_eth0, rule, until
from squall.linux.tests.two_namespaces import TwoNamespaces

pytestmark = pytest.mark.host

V4, OTHER_V4, V6, OTHER_V6 = TwoNamespaces.FAR


async def test_traffic_flows_again_within_100_ms_of_a_sigkill(net, packets):
    await packets.set(on_eth0(rule(Impairment(delay_us=50 * MS)), nft=drops(OTHER_V4)))
    sending = asyncio.create_task(asyncio.to_thread(net.received, V4, 100, pause=0.005))
    await until(packets, lambda state: state.counters["a"].packets > 20)
    os.kill(packets.pid, signal.SIGKILL)
    await asyncio.wait_for(packets.gone.wait(), 5)
    lost = 100 - len(await sending)
    assert lost * 5 <= 50 + 100  # ms: what was waiting, and the gap
    assert net.one_way_ms(V4) < SLACK_MS
    assert "squall" not in net.links() + net.ruleset()


async def test_a_sigterm_takes_all_back_and_loses_nothing(net, packets, tmp_path):
    slow = rule(Impairment(delay_us=5000 * MS), f"{V4}/32")
    await packets.set(on_eth0(slow, nft=drops(OTHER_V4)))
    sending = asyncio.create_task(asyncio.to_thread(net.received, V4, 10))
    await until(packets, lambda state: state.counters["a"].packets == 10)
    os.kill(packets.pid, signal.SIGTERM)
    await asyncio.wait_for(packets.gone.wait(), 5)
    assert len(await sending) == 10
    assert "squall" not in net.links() + net.ruleset()
    assert not (tmp_path / "packets").exists()


async def test_a_process_that_hangs_lets_traffic_pass(net, packets):
    await packets.set(on_eth0(rule(Impairment(delay_us=50 * MS))))
    os.kill(packets.pid, signal.SIGSTOP)
    start = time.monotonic()
    while len(net.received(V4, 1)) == 0:
        assert time.monotonic() - start < 3
    assert net.one_way_ms(V4) < SLACK_MS
    os.kill(packets.pid, signal.SIGCONT)
    await packets.state()
    net.received(V4, 0)  # what was caught in the hanging process
    assert holds(net.one_way_ms(V4), 50)


async def test_a_target_that_deletes_our_device_is_free(net, packets):
    await packets.set(on_eth0(rule(Impairment(loss=100))))
    net.delete_device("squall0")
    await asyncio.wait_for(packets.gone.wait(), 5)
    assert len(net.received(V4, 3)) == 3


async def test_a_device_that_comes_anew_is_impaired_anew(net, packets):
    held = Held(lanes=(Lane("extra", (rule(Impairment(loss=100)),)),))
    net.add_device("extra")
    await packets.set(held)
    net.delete_device("extra")
    assert (await packets.state()).held.lanes == ()
    with pytest.raises(TryAgain, match="extra"):
        await packets.set(held)
    net.add_device("extra")
    await packets.set(held)
    assert (await packets.state()).held == held
    await packets.set(Held())
    assert "squall" not in net.links()


async def test_it_ends_one_lease_after_its_client(net, tmp_path):
    packets = await PacketsProcess.start(net.near, tmp_path / "packets", lease_seconds=60)
    await packets.set(on_eth0(rule(Impairment(delay_us=10 * MS)), lease_seconds=0.5))
    fd = os.pidfd_open(packets.pid)
    packets.close()
    start = time.monotonic()
    assert await asyncio.to_thread(select.select, [fd], [], [], 5) == ([fd], [], [])
    os.close(fd)
    assert 0.4 < time.monotonic() - start < 2
    assert not (tmp_path / "packets").exists()
    assert "squall" not in net.links()


async def test_it_ends_at_its_deadline_though_its_client_is_there(net, packets):
    start = time.clock_gettime(time.CLOCK_BOOTTIME)
    await packets.set(on_eth0(nft=drops(V4), deadline=start + 0.5))
    assert V4 in net.ruleset()
    await asyncio.wait_for(packets.gone.wait(), 5)
    assert 0.5 <= time.clock_gettime(time.CLOCK_BOOTTIME) - start < 2
    assert net.ruleset() == ""


async def test_a_new_agent_finds_what_the_old_one_left(net, packets, tmp_path):
    held = on_eth0(
        rule(Impairment(delay_us=10 * MS, loss=12.5), f"{V4}/32", "fd09::/64", port=80),
        rule(Impairment(rate=5), source="b"),
        nft=drops(OTHER_V4),
        deadline=time.clock_gettime(time.CLOCK_BOOTTIME) + 1000.25,
    )
    await packets.set(held)
    packets.close()
    again = await PacketsProcess.connect(tmp_path / "packets")
    assert again is not None
    assert again.pid == packets.pid
    state = await again.state()
    assert state.held == held
    assert set(state.counters) == {"a", "b"}
    assert '"counter"' in await again.list()
    await again.quit()
    assert list(tmp_path.iterdir()) == []
    assert await PacketsProcess.connect(tmp_path / "packets") is None


async def test_a_newer_client_replaces_the_older(net, packets, tmp_path):
    newer = await PacketsProcess.connect(tmp_path / "packets")
    assert newer is not None
    assert (await newer.state()).held.lanes == ()
    await asyncio.wait_for(packets.gone.wait(), 5)
    with pytest.raises(TryAgain):
        await packets.state()
    newer.close()


async def test_the_same_again_changes_nothing(net, packets):
    held = on_eth0(rule(Impairment(delay_us=10 * MS), f"{V4}/32"), nft=drops(OTHER_V4))
    await packets.set(held)
    net.one_way_ms(V4)
    assert net.received(OTHER_V4, 3) == []
    before = (await packets.list(), (await packets.state()).counters)
    assert '"packets":3' in before[0]
    await packets.set(held)
    assert (await packets.list(), (await packets.state()).counters) == before


async def test_packets_in_flight_survive_a_change_of_another_rule_and_the_end(net, packets):
    slow = rule(Impairment(delay_us=300 * MS), f"{V4}/32")
    await packets.set(on_eth0(slow))
    sending = asyncio.create_task(asyncio.to_thread(net.received, V4, 10))
    await until(packets, lambda state: state.counters["a"].packets == 10)
    await packets.set(on_eth0(slow, rule(Impairment(delay_us=1), f"{V6}/128", source="b")))
    await packets.set(Held())
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
async def test_a_refused_change_changes_nothing(net, packets, lane, error, says):
    held = on_eth0(rule(Impairment(delay_us=10 * MS), f"{V4}/32"), nft=drops(OTHER_V4))
    await packets.set(held)
    rules = net.ruleset()
    others = () if lane.device == "eth0" else held.lanes
    with pytest.raises(error, match=says):
        await packets.set(Held(nft=drops(V4), lanes=(*others, lane)))
    assert (await packets.state()).held == held
    assert net.ruleset() == rules
    assert holds(net.one_way_ms(V4), 10)


async def test_what_nft_refuses_leaves_no_lane_behind(net, packets):
    with pytest.raises(TryAgain, match="nft"):
        await packets.set(on_eth0(rule(Impairment(loss=100)), nft="no such command"))
    assert "squall" not in net.links()
    assert len(net.received(V4, 3)) == 3


async def test_without_a_namespace_it_says_so(tmp_path):
    with pytest.raises(
        TryAgain,
        match=r"^squall-node packets for /run/netns/squall-not-there: enter .*: No such file",
    ):
        await PacketsProcess.start(
            "/run/netns/squall-not-there", tmp_path / "packets", lease_seconds=1
        )
