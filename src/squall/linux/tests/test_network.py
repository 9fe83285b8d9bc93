import asyncio
import contextlib
import os
import signal
import socket

import pytest

from squall.errors import TargetGone, Unsupported
from squall.injection.world.network import Cut, Impairment, NetworkState, Peers, Shape
from squall.linux import namespaces
from squall.linux.tests.conftest import FAR, PORT, SECOND, SPARE

pytestmark = [pytest.mark.host, pytest.mark.kernel]

NOTHING = NetworkState()
versions = pytest.mark.parametrize("version", [4, 6])


class Near:
    """At least so many milliseconds, and less than 15 more: other work shares the processors."""

    def __init__(self, least):
        self.least = least

    def __eq__(self, measured):
        return measured is not None and self.least <= measured < self.least + 15

    def __repr__(self):
        return f"{self.least} to {self.least + 15} ms"

    __hash__ = None


def only(address, port=0):
    return (Peers(f"{address}/{128 if ':' in address else 32}", port),)


def cut(version=4, *, source="a/.", way="out", port=0, device=""):
    return NetworkState(cuts=(Cut(source, way, only(FAR[version], port), device),))


def shape(version=4, *, source="a/.", device="", **impairment):
    return Shape(source, only(FAR[version]), Impairment(**impairment), device)


def shaped(version=4, **impairment):
    return NetworkState(shapes=(shape(version, **impairment),))


async def median_ms(network, target, address, count=5, within_seconds=1.0):
    """Median round trip of pings, or None where none is answered."""
    pinged = await network.ping(target, address, count=count, within_seconds=within_seconds)
    return sorted(pinged.rtt_ms)[len(pinged.rtt_ms) // 2] if pinged.rtt_ms else None


@contextlib.asynccontextmanager
async def udp(cables, version):
    """A socket in the target, and one in the peer that is bound to every address."""
    sender = await cables.open(cables.target, socket.SOCK_DGRAM, version)
    receiver = await cables.open(cables.peer, socket.SOCK_DGRAM, version)
    with sender, receiver:
        receiver.bind(("", PORT))
        yield sender, receiver


async def received(sock, within_seconds=0.3):
    """Bytes that arrive, or None when nothing does."""
    try:
        async with asyncio.timeout(within_seconds):
            return await asyncio.get_running_loop().sock_recv(sock, 4096)
    except TimeoutError:
        return None


@versions
async def test_a_cut_is_felt_by_the_sender_at_once_and_healed(cables, network, version):
    before = cables.snapshot()
    async with udp(cables, version) as (sender, receiver):
        await network.apply(cables.target, cut(version))
        with pytest.raises(PermissionError):
            sender.sendto(b"x", (FAR[version], PORT))
        sender.sendto(b"spared", (SPARE[version], PORT))
        assert await received(receiver) == b"spared"
        counted = await network.counters(cables.target)
        assert counted["a/."].dropped == 1

        await network.apply(cables.target, NOTHING)
        sender.sendto(b"healed", (FAR[version], PORT))
        assert await received(receiver) == b"healed"
    assert cables.snapshot() == before


@versions
async def test_a_cut_blocks_connections_that_are_established(cables, network, version):
    loop = asyncio.get_running_loop()
    listener = await cables.open(cables.peer, socket.SOCK_STREAM, version)
    client = await cables.open(cables.target, socket.SOCK_STREAM, version)
    with listener, client:
        listener.bind(("", PORT))
        listener.listen()
        await loop.sock_connect(client, (FAR[version], PORT))
        served, _ = await loop.sock_accept(listener)
        with served:
            await loop.sock_sendall(client, b"one")
            assert await received(served) == b"one"
            await network.apply(cables.target, cut(version))
            await loop.sock_sendall(client, b"two")
            assert await received(served) is None
            await network.apply(cables.target, NOTHING)
            assert await received(served, 5) == b"two"


@versions
async def test_a_cut_inwards_drops_what_the_peer_sends(cables, network, version):
    await network.apply(cables.target, cut(version, way="in"))
    pinged = await network.ping(cables.target, FAR[version], count=3, within_seconds=0.3)
    assert (pinged.received, pinged.refused) == (0, 0)
    assert (await network.counters(cables.target))["a/."].dropped >= 3
    assert await median_ms(network, cables.target, SPARE[version]) is not None


@versions
async def test_a_cut_of_one_port_spares_the_others(cables, network, version):
    await network.apply(cables.target, cut(version, port=PORT))
    async with udp(cables, version) as (sender, _):
        with pytest.raises(PermissionError):
            sender.sendto(b"x", (FAR[version], PORT))
        sender.sendto(b"x", (FAR[version], PORT + 1))
    assert await median_ms(network, cables.target, FAR[version]) is not None


async def test_a_cut_of_everything_spares_loopback(cables, network):
    await network.apply(cables.target, NetworkState(cuts=(Cut("a/.", "out", None),)))
    for address in (FAR[4], FAR[6], SECOND[4]):
        pinged = await network.ping(cables.target, address, count=1, within_seconds=0.2)
        assert pinged.refused == 1
    assert await median_ms(network, cables.target, "127.0.0.1") is not None


async def test_a_cut_on_one_device_spares_the_other(cables, network):
    everything = Cut("a/.", "out", None, "eth1")
    await network.apply(cables.target, NetworkState(cuts=(everything,)))
    assert await median_ms(network, cables.target, FAR[4]) is not None
    pinged = await network.ping(cables.target, SECOND[4], count=1, within_seconds=0.2)
    assert pinged.refused == 1


async def test_what_is_in_force_is_read_back_as_it_was_asked(cables, network):
    many = (Peers("10.0.0.0/8"), Peers("10.77.0.0/24", 80), Peers("10.77.0.2/31", 443))
    wanted = NetworkState(
        cuts=(
            Cut("b/.Target", "in", (Peers("0.0.0.0/0"), *only(FAR[6])), "eth1"),
            Cut("a/.", "out", many),
            Cut("c/.", "out", None, "eth0"),
        ),
        shapes=(
            shape(4, delay_us=1000, jitter_us=100, loss=0.1, source="b/."),
            shape(6, source="c/.", device="eth0", bandwidth_rate=10**6, bandwidth_buffer=10**4,
                  bandwidth_limit=10**5),
            Shape("d/.", many, Impairment(rate=10**6), "eth1"),
        ),
    )  # fmt: skip
    await network.apply(cables.target, wanted)
    assert await network.state(cables.target) == wanted
    once = cables.snapshot()
    await network.apply(cables.target, wanted)
    assert cables.snapshot() == once


@versions
async def test_a_delay_is_felt_by_what_is_aimed_at_alone(cables, network, version):
    await network.apply(cables.target, shaped(version, delay_us=60_000))
    assert await median_ms(network, cables.target, FAR[version]) == Near(60)
    assert await median_ms(network, cables.target, SPARE[version]) == Near(0)


async def test_a_delay_without_peers_is_felt_by_all_that_leaves(cables, network):
    everything = Shape("a/.", None, Impairment(delay_us=40_000))
    await network.apply(cables.target, NetworkState(shapes=(everything,)))
    for address in (FAR[4], FAR[6], SPARE[4]):
        assert await median_ms(network, cables.target, address) == Near(40)
    assert await median_ms(network, cables.target, SECOND[4]) == Near(0)


async def test_jitter_spreads_the_delay(cables, network):
    await network.apply(cables.target, shaped(delay_us=20_000, jitter_us=10_000))
    pinged = await network.ping(cables.target, FAR[4], count=60, within_seconds=2)
    rtt_ms = sorted(pinged.rtt_ms)
    assert 9 < rtt_ms[0] < 16
    assert 24 < rtt_ms[-4] < 33  # other work on this machine may hold a few up


@versions
@pytest.mark.parametrize(
    ("asked", "counter", "share"),
    [
        ({"loss": 30}, "lost", 0.3),
        ({"duplicate": 40}, "duplicated", 0.4),
        ({"corrupt": 30}, "damaged", 0.3),
    ],
)
async def test_chance_hits_the_share_that_was_asked(
    cables, network, version, asked, counter, share
):
    await network.apply(cables.target, shaped(version, **asked))
    count = 400
    async with udp(cables, version) as (sender, receiver):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        whole = bytes(64)
        for sent in range(count):
            sender.sendto(whole, (FAR[version], PORT))
            if sent % 20 == 0:
                await asyncio.sleep(0.001)
        got = []
        while (packet := await received(receiver)) is not None:
            got.append(packet)
    seen = {
        "lost": count - len(got),
        "duplicated": len(got) - count,
        # Damage to a header, or to what a checksum covers, is a loss to the receiver.
        "damaged": count - sum(packet == whole for packet in got),
    }[counter]
    assert seen / count == pytest.approx(share, abs=0.12)


async def test_reordering_lets_packets_overtake(cables, network):
    await network.apply(cables.target, shaped(delay_us=20_000, reorder=50, reorder_gap=1))
    pinged = await network.ping(cables.target, FAR[4], count=60, within_seconds=2)
    early = sum(rtt < 10 for rtt in pinged.rtt_ms)
    assert early / 60 == pytest.approx(0.5, abs=0.25)


@versions
@pytest.mark.parametrize(
    "asked",
    [
        {"rate": 500_000},
        {"bandwidth_rate": 500_000, "bandwidth_buffer": 5000, "bandwidth_limit": 10**6},
    ],
)
async def test_a_limit_lets_no_more_through(cables, network, version, asked):
    await median_ms(network, cables.target, FAR[version])  # makes the neighbour known
    await network.apply(cables.target, shaped(version, **asked))
    loop = asyncio.get_running_loop()
    async with udp(cables, version) as (sender, receiver):
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        began = loop.time()
        for _ in range(100):
            sender.sendto(bytes(1000), (FAR[version], PORT))
        size = 0
        while size < 100_000 and (packet := await received(receiver)) is not None:
            size += len(packet)
        took = loop.time() - began
    assert size == 100_000
    # 100 packets with their headers, less the burst; freely they take a few milliseconds.
    assert 0.17 < took < 0.5


@pytest.mark.parametrize("first", ["a/.", "b/."])
async def test_faults_stack_and_peel_off_in_any_order(cables, network, first):
    before = cables.snapshot()
    slow, slower = shape(source="a/.", delay_us=40_000), shape(source="b/.", delay_us=60_000)
    await network.apply(cables.target, NetworkState(shapes=(slow,)))
    await network.apply(cables.target, NetworkState(shapes=(slow, slower)))
    assert await median_ms(network, cables.target, FAR[4]) == Near(100)
    left, delay_ms = (slower, 60) if first == "a/." else (slow, 40)
    await network.apply(cables.target, NetworkState(shapes=(left,)))
    assert await median_ms(network, cables.target, FAR[4]) == Near(delay_ms)
    await network.apply(cables.target, NOTHING)
    assert await median_ms(network, cables.target, FAR[4]) == Near(0)
    assert cables.snapshot() == before


async def test_faults_on_nested_networks_add_up_where_they_meet(cables, network):
    wide = Shape("a/.", (Peers("10.77.0.0/24"),), Impairment(delay_us=40_000))
    await network.apply(cables.target, NetworkState(shapes=(wide, shape(delay_us=60_000))))
    assert await median_ms(network, cables.target, FAR[4]) == Near(100)
    assert await median_ms(network, cables.target, SPARE[4]) == Near(40)
    assert await median_ms(network, cables.target, FAR[6]) == Near(0)


async def test_rules_and_qdiscs_of_others_are_left_as_they_are(cables, network):
    rules = (
        "table inet filter { chain c { type filter hook output priority 0; udp dport 9 drop; }; }"
    )
    cables.run(cables.target, "nft", f"add {rules}")
    bucket = ("handle", "7:", "tbf", "rate", "1mbit", "burst", "9k", "limit", "9k")
    cables.run(cables.target, "tc", "qdisc", "add", "dev", "eth1", "root", *bucket)
    before = cables.snapshot()
    wanted = NetworkState(cuts=cut(6).cuts, shapes=(shape(delay_us=1000),))
    await network.apply(cables.target, wanted)
    during = cables.snapshot()
    assert "udp dport 9 drop" in during
    assert '"handle":"7:"' in during
    await network.apply(cables.target, NOTHING)
    assert cables.snapshot() == before


async def test_a_device_with_a_qdisc_of_others_is_refused_where_qdiscs_are_the_path(
    cables, network
):
    foreign = "qdisc add dev eth0 root handle 7: tbf rate 1gbit burst 1mb latency 10ms"
    cables.run(cables.target, "tc", *foreign.split())
    before = cables.snapshot()
    if network.path == "netem":
        with pytest.raises(Unsupported, match="eth0 already has a root tbf"):
            await network.apply(cables.target, shaped(delay_us=1000))
    else:  # lanes stand beside qdiscs
        await network.apply(cables.target, shaped(delay_us=1000))
        await network.apply(cables.target, NOTHING)
    assert cables.snapshot() == before


async def test_a_killed_holder_sets_the_traffic_free_and_is_replaced(cables, network):
    wanted = NetworkState(cuts=cut(6).cuts, shapes=(shape(delay_us=60_000),))
    await network.apply(cables.target, wanted)
    [hold] = network._holders._holds.values()
    os.kill(hold.process.pid, signal.SIGKILL)
    await hold.process.gone.wait()
    assert await median_ms(network, cables.target, FAR[4]) == Near(0)
    assert await median_ms(network, cables.target, FAR[6]) is not None
    assert await network.state(cables.target) != wanted
    assert await network.counters(cables.target) == {}
    await network.apply(cables.target, wanted)
    assert await median_ms(network, cables.target, FAR[4]) == Near(60)
    assert await network.state(cables.target) == wanted


async def test_nothing_is_started_for_nothing(cables, network):
    await network.apply(cables.target, NOTHING)
    assert await network.state(cables.target) == NOTHING
    assert await network.counters(cables.target) == {}
    assert not network._holders._holds


async def test_a_holder_of_a_target_that_ended_is_let_go(cables, network):
    await network.apply(cables.target, cut())
    [hold] = network._holders._holds.values()
    os.kill(cables.target.pid, signal.SIGKILL)
    while namespaces.alive(cables.target):  # noqa: ASYNC110  (nothing tells of it)
        await asyncio.sleep(0.01)
    with pytest.raises(TargetGone):
        await network.apply(cables.target, NOTHING)
    async with asyncio.timeout(2):
        await hold.process.gone.wait()


async def test_names_are_read_from_the_hosts_file(cables, network):
    assert "127.0.0.1" in await network.resolve(cables.target, "localhost")


async def test_a_target_knows_its_own_addresses(cables, network):
    found = await network.addresses(cables.target)
    assert {"10.77.0.1", "fd77::1", "127.0.0.1", "::1"} <= found
    assert not {FAR[4], FAR[6], "10.77.0.0", "10.77.0.255"} & found


async def test_a_ping_without_a_route_was_never_sent(cables, network):
    cables.run(cables.target, "ip", "route", "delete", "default")
    pinged = await network.ping(cables.target, "192.0.2.1", count=3, within_seconds=1)
    assert (pinged.sent, pinged.refused, pinged.received) == (0, 0, 0)


async def test_a_holder_that_hangs_is_killed_where_it_must_let_go(cables, network, monkeypatch):
    monkeypatch.setattr("squall.linux.holder.ANSWER_SECONDS", 0.2)
    monkeypatch.setattr("squall.linux.json_lines.ANSWER_SECONDS", 0.2)
    await network.apply(cables.target, cut())
    [hold] = network._holders._holds.values()
    os.kill(hold.process.pid, signal.SIGSTOP)
    await network.apply(cables.target, NOTHING)
    assert await median_ms(network, cables.target, FAR[4]) == Near(0)


async def test_the_router_of_the_default_route_is_told_ipv4_first(cables, network):
    assert await network.gateway(cables.target) == FAR[4]
    assert await network.gateway(cables.target, "lo") is None
    cables.run(cables.target, "ip", "route", "delete", "default")
    assert await network.gateway(cables.target) is None
    cables.run(cables.target, "ip", "route", "add", "default", "via", FAR[6])
    assert await network.gateway(cables.target) == FAR[6]


async def test_five_pings_fit_into_three_milliseconds(cables, network):
    await network.ping(cables.target, FAR[4], count=1, within_seconds=1)  # knows its neighbour
    pinged = await network.ping(cables.target, FAR[4], count=5, within_seconds=0.003)
    assert pinged.received == 5
