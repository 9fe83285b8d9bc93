"""What targets are told about names, on this kernel."""

import asyncio
import itertools
import socket
import time

import dns.flags
import dns.message
import pytest

from squall.injection.world.names import Answer, NameRule
from squall.linux import name_queries, namespaces
from squall.linux.tests.conftest import FAR
from squall.linux.tests.name_server import ADDRESS, asked, opened, says, sent, serving

pytestmark = [pytest.mark.host]

SERVFAIL, NXDOMAIN = Answer("code", 2), Answer("code", 3)
HIT, SPARED = "www.example.com", "example.org"
LOCAL = ("127.0.0.53", "::1")
"""Caches inside the target."""
LINK = "169.254.20.10"
"""A cache of the node, at a link-local address."""
EVERYWHERE = (*FAR.values(), *LOCAL, LINK)
ways = pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])


def rule(answer=SERVFAIL, *patterns, source="a/.", **more):
    types = more.pop("types", ())
    return NameRule(source, patterns or ("*.example.com",), types, answer, **more)


@pytest.fixture
def servers(cables):
    cables.run(cables.peer, "ip", "address", "add", f"{LINK}/32", "dev", "eth0")
    cables.run(cables.target, "ip", "route", "add", LINK, "dev", "eth0")
    peer, target = serving(cables.peer, *FAR.values(), LINK), serving(cables.target, *LOCAL)
    with peer as far, target as near:
        yield far | near


@ways
@pytest.mark.parametrize("server", EVERYWHERE)
async def test_a_name_fails_at_every_server_and_others_resolve(cables, names, servers, server, tcp):
    before = cables.snapshot()
    await names.apply(cables.target, [rule()])
    assert says(asked(cables.target, server, HIT, tcp=tcp)) == "SERVFAIL"
    assert says(asked(cables.target, server, SPARED, tcp=tcp)) == ADDRESS
    await names.apply(cables.target, [])
    assert says(asked(cables.target, server, HIT, tcp=tcp)) == ADDRESS
    assert cables.snapshot() == before


@ways
@pytest.mark.parametrize("server", FAR.values())
async def test_what_is_spared_reaches_its_server_to_the_byte_from_the_same_address(
    cables, names, servers, server, tcp
):
    await names.apply(cables.target, [rule()])
    queries = [
        dns.message.make_query(SPARED, "TXT", use_edns=0, payload=4000, want_dnssec=True),
        dns.message.make_query("version.bind", "TXT", "CH"),
    ]
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with opened(cables.target, server, kind) as over:
        for query in queries:
            sent(over, query)
        source = over.getsockname()[0]
    assert servers[server].seen == [(query.to_wire(), source) for query in queries]


async def test_a_server_at_an_ipv6_address_of_the_link_is_no_way_around_but_by_tcp(cables, names):
    for where in (cables.peer, cables.target):
        cables.run(where, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
    cables.run(cables.peer, "ip", "address", "add", "fe80::53/64", "dev", "eth0", "nodad")
    cables.run(cables.target, "ip", "address", "add", "fe80::1/64", "dev", "eth0", "nodad")
    with serving(cables.peer, "fe80::53%eth0"):
        await names.apply(cables.target, [rule()])
        # A device of the target that the host knows by another number, if at all.
        ours = await name_queries.ask(
            namespaces.of(cables.target), "fe80::53%eth0", HIT, 1, within_seconds=1
        )
        assert ours is not None
        assert ours.code == SERVFAIL.code
        assert says(asked(cables.target, "fe80::53%eth0", HIT)) == "SERVFAIL"
        assert says(asked(cables.target, "fe80::53%eth0", SPARED)) == ADDRESS
        assert says(asked(cables.target, "fe80::53%eth0", HIT, tcp=True)) == ADDRESS


async def test_garbage_and_odd_questions_go_through(cables, names, servers):
    await names.apply(cables.target, [rule(SERVFAIL, "*")])
    query = dns.message.make_query(HIT, "A").to_wire()
    two = query[:5] + b"\2" + query[6:] + query[12:]
    response = query[:2] + b"\x81" + query[3:]
    for odd in (b"hello", b"\0" * 12, query[:-3], two, response, b"\xff" * 600):
        with opened(cables.target, FAR[4]) as over:
            over.send(odd)
            over.recv(65535)
        assert servers[FAR[4]].seen.pop()[0] == odd


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(b"\0\7\x24\0" + b"\0\1" + bytes(6) + b"\1a\0\0\6\0\1", id="NOTIFY"),
        pytest.param(b"\0\7\x28\0" + b"\0\1" + bytes(6) + b"\1a\0\0\6\0\1", id="UPDATE"),
        pytest.param(b"\0\7\x30\0" + bytes(8), id="DSO"),
        pytest.param(b"\0\7\1\0" + bytes(8), id="no question"),
        pytest.param(b"\0\7\1\0\0\2" + bytes(6) + b"\1a\0\0\1\0\1" * 2, id="two questions"),
    ],
)
async def test_whatever_else_a_connection_says_its_queries_are_caught(cables, names, servers, odd):
    """As `dig +tcp +keepopen +opcode=notify` does, and then asks."""
    await names.apply(cables.target, [rule()])
    with opened(cables.target, FAR[4], socket.SOCK_STREAM) as over:
        over.sendall(len(odd).to_bytes(2) + odd)
        assert over.recv(65535)
        assert says(sent(over, dns.message.make_query(HIT, "A"))) == "SERVFAIL"
        assert says(sent(over, dns.message.make_query(SPARED, "A"))) == ADDRESS
    assert servers[FAR[4]].seen[0][0] == odd


async def test_what_is_no_dns_passes_the_port_of_names_over_tcp(cables, names, servers):
    await names.apply(cables.target, [rule(SERVFAIL, "*")])
    # Read as DNS: a message of 0x0010 bytes whose header is no query.
    strange = b"\0\x10" + b"\xff" * 16
    with opened(cables.target, FAR[4], socket.SOCK_STREAM) as over:
        over.sendall(strange)
        assert over.recv(100) == strange
    assert servers[FAR[4]].seen[0][0] == strange[2:]


@ways
async def test_sockets_that_are_open_already_feel_it(cables, names, servers, tcp):
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    query = dns.message.make_query(HIT, "A")
    with opened(cables.target, FAR[4], kind) as before:
        assert says(sent(before, query)) == ADDRESS
        await names.apply(cables.target, [rule()])
        if tcp:  # a connection of which we know no beginning is reset, and made anew
            with pytest.raises(ConnectionError):
                sent(before, query)
        else:
            assert says(sent(before, query)) == "SERVFAIL"
    with opened(cables.target, FAR[4], kind) as during:
        assert says(sent(during, query)) == "SERVFAIL"
        await names.apply(cables.target, [])
        if tcp:
            with pytest.raises((ConnectionError, EOFError)):
                sent(during, query)
        else:
            assert says(sent(during, query)) == ADDRESS


async def test_queries_in_a_row_over_one_connection_are_each_answered(cables, names, servers):
    await names.apply(cables.target, [rule(), rule(Answer("relayed"), "slow.*", delay_us=50_000)])
    wanted = [
        *(f"n{n}.example.com" for n in range(20)),
        *(f"n{n}.org" for n in range(20)),
        "slow.x",
    ]
    queries = {query.id: query for query in (dns.message.make_query(name, "A") for name in wanted)}
    heap = b"".join(
        len(wire).to_bytes(2) + wire for wire in (query.to_wire() for query in queries.values())
    )
    with opened(cables.target, FAR[4], socket.SOCK_STREAM) as over:
        over.sendall(heap[:100])
        over.sendall(heap[100:])
        over.shutdown(socket.SHUT_WR)
        replies = [dns.query.receive_tcp(over)[0] for _ in queries]
        assert over.recv(1) == b""
    assert {reply.id for reply in replies} == set(queries)
    for reply in replies:
        name = reply.question[0].name.to_text()
        assert says(reply) == ("SERVFAIL" if "example.com" in name else ADDRESS), name
    assert replies[-1].question[0].name.to_text() == "slow.x."


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (SERVFAIL, "TXT", "SERVFAIL"),
        (NXDOMAIN, "MX", "NXDOMAIN"),
        (Answer("code", 5), "SRV", "REFUSED"),
        (Answer("code", 0), "AAAA", "NOERROR"),
        (Answer("addresses", addresses=("203.0.113.7", "2001:db8::7")), "A", "203.0.113.7"),
        (Answer("addresses", addresses=("203.0.113.7", "2001:db8::7")), "AAAA", "2001:db8::7"),
        (Answer("addresses", addresses=("203.0.113.7",)), "AAAA", "NOERROR"),
        (Answer("addresses", addresses=("203.0.113.7",)), "MX", ADDRESS),
    ],
)
async def test_an_answer_is_what_was_asked_for(cables, names, servers, answer, kind, said):
    await names.apply(cables.target, [rule(answer)])
    for tcp in (False, True):
        assert says(asked(cables.target, FAR[4], HIT, kind, tcp=tcp)) == said


async def test_random_addresses_differ_and_belong_to_nobody(cables, names, servers):
    await names.apply(cables.target, [rule(Answer("addresses"))])
    found = {says(asked(cables.target, FAR[4], f"n{n}.example.com")) for n in range(5)}
    assert len(found) == 5
    assert all(address.startswith(("198.18.", "198.19.")) for address in found)
    assert says(asked(cables.target, FAR[4], HIT, "AAAA")).startswith("2001:db8::")


async def test_an_answer_is_not_to_be_kept_and_repeats_edns(cables, names, servers):
    await names.apply(cables.target, [rule(Answer("addresses", addresses=("203.0.113.7",)))])
    reply = asked(cables.target, FAR[4], HIT, use_edns=0, want_dnssec=True)
    assert reply.answer[0].ttl == 0
    assert reply.edns == 0
    assert reply.ednsflags & dns.flags.DO
    assert asked(cables.target, FAR[4], HIT).edns == -1


@ways
async def test_silence_is_silence_for_that_name_alone(cables, names, servers, tcp):
    await names.apply(cables.target, [rule(Answer("nothing"))])
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with opened(cables.target, FAR[4], kind) as over:
        over.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sent(over, dns.message.make_query(HIT, "A"))
        assert says(sent(over, dns.message.make_query(SPARED, "A"))) == ADDRESS
    assert (await names.counters(cables.target))["a/."].swallowed == 1


async def test_a_truncated_answer_is_right_over_tcp(cables, names, servers):
    await names.apply(cables.target, [rule(Answer("truncated"))])
    assert asked(cables.target, FAR[4], HIT).flags & dns.flags.TC
    assert says(asked(cables.target, FAR[4], HIT, tcp=True)) == ADDRESS


@ways
@pytest.mark.parametrize("answer", [Answer("relayed"), NXDOMAIN])
async def test_a_delay_is_felt_as_long_as_asked_and_ends_with_its_fault(
    cables, names, servers, answer, tcp
):
    await names.apply(cables.target, [rule(answer, delay_us=100_000)])
    began = time.perf_counter()
    asked(cables.target, FAR[4], HIT, tcp=tcp)
    assert 0.1 <= time.perf_counter() - began < 0.2
    counted = (await names.counters(cables.target))["a/."]
    assert counted.delayed == 1
    assert 100_000 <= counted.delay_us_sum < 150_000

    await names.apply(cables.target, [rule(answer, delay_us=30_000_000)])
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with opened(cables.target, FAR[4], kind) as over:
        waiting = asyncio.to_thread(sent, over, dns.message.make_query(HIT, "A"))
        task = asyncio.create_task(waiting)
        async with asyncio.timeout(2):
            while (await names.counters(cables.target))["a/."].hit < 2:
                pass  # each look lets others run
        await names.apply(cables.target, [rule(SERVFAIL, "other.name", source="b/.")])
        assert says(await task) == ADDRESS


async def test_a_share_of_the_look_ups_is_hit(cables, names, servers):
    await names.apply(cables.target, [rule(percent=30.0)])
    with opened(cables.target, FAR[4]) as over:
        found = [says(sent(over, dns.message.make_query(HIT, "A"))) for _ in range(400)]
    assert 70 <= found.count("SERVFAIL") <= 170
    counted = (await names.counters(cables.target))["a/."]
    assert (counted.matched, counted.hit) == (400, found.count("SERVFAIL"))


async def test_with_a_seed_the_same_look_ups_are_hit_again(cables, names, servers):
    async def said(seed):
        await names.apply(cables.target, [rule(percent=50.0, seed=seed)])
        with opened(cables.target, FAR[4]) as over:
            # Of two with the same number the second would be taken for a copy of the first.
            queries = [dns.message.make_query(HIT, "A", id=number) for number in range(60)]
            found = [says(sent(over, query)) for query in queries]
        await names.apply(cables.target, [])
        return found

    first = await said(7)
    assert await said(7) == first
    assert await said(8) != first


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_experiments_on_one_target_peel_off_in_any_order(cables, names, servers, order):
    before = cables.snapshot()
    wrong = Answer("addresses", addresses=("203.0.113.7",))
    rules = [rule(NXDOMAIN), rule(SERVFAIL, "*", source="b/."), rule(wrong, "*", source="c/.")]
    saying = {"a/.": "NXDOMAIN", "b/.": "SERVFAIL", "c/.": "203.0.113.7"}
    live = list(rules)
    for gone in (None, *order):
        if gone is not None:
            live.remove(rules[gone])
        await names.apply(cables.target, live)
        assert tuple(await names.state(cables.target)) == tuple(live)
        expected = saying[live[0].source] if live else ADDRESS
        assert says(asked(cables.target, FAR[4], HIT)) == expected
        narrow = [one for one in live if one.source != "a/."]
        expected = saying[narrow[0].source] if narrow else ADDRESS
        assert says(asked(cables.target, FAR[4], SPARED)) == expected
    assert cables.snapshot() == before


async def test_questions_of_ours_are_answered_as_those_of_the_target(cables, names, servers):
    async def reply(server, name=HIT):
        namespace = namespaces.of(cables.target)
        return await name_queries.ask(namespace, server, name, 1, within_seconds=0.2)

    assert (await reply(FAR[6])).addresses == (ADDRESS,)
    await names.apply(cables.target, [rule(), rule(Answer("nothing"), "no.one", source="b/.")])
    assert (await reply(FAR[6])).code == SERVFAIL.code
    assert (await reply(FAR[4], "no.one")).code is None
    cables.run(cables.target, "ip", "route", "del", "default")
    assert await reply("203.0.113.53") is None
    assert await reply("127.0.0.7", SPARED) is None


@pytest.mark.parametrize(
    ("resolv_conf", "servers"),
    [
        ("search a.b\nnameserver 10.0.0.1 # one\nnameserver fd00::1\n", ["10.0.0.1", "fd00::1"]),
        ("nameserver\nnameserver nonsense\n", ["127.0.0.1"]),
        ("", ["127.0.0.1"]),
        ("nameserver fe80::1%eth0", ["fe80::1%eth0"]),
    ],
)
def test_servers_are_those_of_resolv_conf(resolv_conf, servers):
    assert name_queries.servers(resolv_conf) == servers
