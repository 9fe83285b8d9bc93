"""What faults in names do under floods: nothing is lost, and nothing grows without end."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import pytest

from squall.injection.world.names import Answer, NameRule
from squall.linux import namespaces
from squall.linux.tests.conftest import FAR
from squall.linux.tests.name_server import ADDRESS, asked, netns, opened, says, sent, serving
from squall.linux.tests.two_namespaces import inside

pytestmark = [pytest.mark.host]

SO_RCVBUFFORCE = 33
LARGE = 32 << 20
HIT, SPARED = "www.example.com", "example.org"
PATIENCE_SECONDS = 30
LATE = NameRule("late/.", ("*.example.com",), (), Answer("relayed"), delay_us=60_000_000)
FAILS = NameRule("fails/.", ("*.example.com",), (), Answer("code", 2))


@pytest.fixture
def listening(cables):
    """A server that takes queries as fast as they come, and answers none."""
    with inside(netns(cables.peer)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taking:
        taking.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, LARGE)
        taking.bind((FAR[4], 53))
        taking.settimeout(PATIENCE_SECONDS)
        yield taking


@pytest.fixture
def few_descriptors():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    @contextlib.contextmanager
    def few() -> Iterator[None]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    return few


def resident_mb(names, target) -> float:
    holder = names._holders._holds[namespaces.of(target).inode].process
    status = Path(f"/proc/{holder.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def query(number: int) -> bytes:
    return dns.message.make_query(HIT, "A", id=number).to_wire()


def message(wire: bytes) -> bytes:
    return len(wire).to_bytes(2) + wire


async def until_hit(names, target, count):
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await names.counters(target))["late/."].hit < count:
            pass  # each look lets others run


async def test_every_query_that_waits_goes_on_when_the_fault_ends(cables, names, listening):
    count, sockets = 8_000, 100
    await names.apply(cables.target, [LATE])
    with contextlib.ExitStack() as stack:
        asking = [stack.enter_context(opened(cables.target, FAR[4])) for _ in range(sockets)]
        ports = {one.getsockname()[1] for one in asking}
        for number in range(count):
            asking[number % sockets].send(query(number))
        await until_hit(names, cables.target, count)
        assert resident_mb(names, cables.target) < 30
        await names.apply(cables.target, [])
        arrived = [listening.recvfrom(512) for _ in range(count)]
    assert {int.from_bytes(wire[:2]) for wire, _ in arrived} == set(range(count))
    assert {client for _, client in arrived} == {(near(4), port) for port in ports}


@pytest.mark.parametrize("version", [4, 6])
async def test_a_socket_never_waits_for_those_that_are_held(cables, names, version):
    """Packets that the kernel holds fill the buffer of the socket that sent them."""
    count = 1000
    # The way that a second table leads: what is sent again must take it, too.
    family = () if version == 4 else ("-6",)
    cables.run(cables.target, "ip", *family, "rule", "add", "from", near(version), "table", "77")
    cables.run(
        cables.target, "ip", *family, "route", "add", "default", "dev", "eth0", "table", "77"
    )
    with serving(cables.peer, FAR[version]) as servers:
        servers[FAR[version]].sockets[0].setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, LARGE)
        await names.apply(cables.target, [LATE])
        with opened(cables.target, FAR[version]) as over:
            over.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, LARGE)
            over.setblocking(False)
            for number in range(count):
                over.send(query(number))
            await until_hit(names, cables.target, count)
            await names.apply(cables.target, [])
            over.settimeout(PATIENCE_SECONDS)
            replies = [dns.message.from_wire(over.recv(512)) for _ in range(count)]
    assert {reply.id for reply in replies} == set(range(count))
    assert {says(reply) for reply in replies} == {ADDRESS}


def near(version):
    return FAR[version].removesuffix("2") + "1"


@pytest.mark.parametrize("answer", [Answer("relayed"), Answer("code", 2)])
async def test_late_answers_to_many_queries_of_one_socket_all_come(cables, names, server, answer):
    count = 300
    server.sockets[0].setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, LARGE)
    late = NameRule("late/.", (), (), answer, delay_us=300_000)
    await names.apply(cables.target, [late])
    with opened(cables.target, FAR[4]) as over:
        over.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, LARGE)
        over.settimeout(PATIENCE_SECONDS)
        for number in range(count):
            over.send(query(number))
        replies = [dns.message.from_wire(over.recv(512)) for _ in range(count)]
    assert {reply.id for reply in replies} == set(range(count))
    assert {says(reply) for reply in replies} == {"SERVFAIL" if answer.code else ADDRESS}
    assert (await names.counters(cables.target))["late/."].delayed == count


async def test_queries_of_a_stream_wait_in_a_bounded_space(cables, names, server):
    await names.apply(cables.target, [LATE])
    heap = message(query(1)) * 1000
    with opened(cables.target, FAR[4], socket.SOCK_STREAM) as over:
        with contextlib.suppress(TimeoutError):
            for _ in range(400):
                over.sendall(heap)
        assert resident_mb(names, cables.target) < 60
        await names.apply(cables.target, [FAILS])
        assert says(asked(cables.target, FAR[4], HIT, tcp=True)) == "SERVFAIL"


async def test_who_reads_no_answers_is_asked_for_no_more_queries(cables, names, server):
    await names.apply(cables.target, [FAILS])
    heap = message(query(1)) * 1000
    with opened(cables.target, FAR[4], socket.SOCK_STREAM) as over:
        with pytest.raises(TimeoutError):
            over.sendall(heap * 2000)
        assert resident_mb(names, cables.target) < 20
        for _ in range(1000):  # it goes on as soon as he reads
            assert says(dns.query.receive_tcp(over)[0]) == "SERVFAIL"


async def test_idle_connections_are_in_nobodys_way(cables, names, server, few_descriptors):
    with few_descriptors():
        await names.apply(cables.target, [FAILS])
    with contextlib.ExitStack() as stack:
        idle = [
            stack.enter_context(opened(cables.target, FAR[4], socket.SOCK_STREAM))
            for _ in range(150)
        ]
        for over in idle:
            assert says(sent(over, dns.message.make_query(HIT, "A"))) == "SERVFAIL"
            assert says(sent(over, dns.message.make_query(SPARED, "A"))) == ADDRESS
        for tcp in (False, True):
            assert says(asked(cables.target, FAR[4], HIT, tcp=tcp)) == "SERVFAIL"


async def test_a_stream_that_comes_byte_by_byte_is_understood(cables, names, server):
    await names.apply(cables.target, [FAILS])
    with opened(cables.target, FAR[4], socket.SOCK_STREAM) as over:
        over.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wanted = [(HIT, "SERVFAIL"), (SPARED, ADDRESS), (HIT, "SERVFAIL")]
        for name, said in wanted:
            for octet in message(dns.message.make_query(name, "A").to_wire()):
                over.send(bytes([octet]))
            assert says(dns.query.receive_tcp(over)[0]) == said


async def test_a_query_in_the_first_segment_of_a_connection_is_caught(cables, names, server):
    for where in (cables.peer, cables.target):
        cables.run(where, "sysctl", "-qw", "net.ipv4.tcp_fastopen=0x603")

    def fast():
        with inside(netns(cables.target)):
            over = socket.socket()
        with over:
            over.sendto(message(query(7)), socket.MSG_FASTOPEN, (FAR[4], 53))
            over.settimeout(PATIENCE_SECONDS)
            return says(dns.query.receive_tcp(over)[0])

    assert [fast(), fast()] == [ADDRESS, ADDRESS]
    await names.apply(cables.target, [FAILS])
    assert [fast(), fast()] == ["SERVFAIL", "SERVFAIL"]


async def test_addresses_that_fit_in_no_datagram_are_told_over_a_stream(cables, names, server):
    addresses = tuple(f"203.0.113.{number}" for number in range(100))
    many = NameRule("many/.", (), (), Answer("addresses", addresses=addresses))
    await names.apply(cables.target, [many])
    short = asked(cables.target, FAR[4], HIT)
    assert short.flags & dns.flags.TC
    assert len(short.to_wire()) <= 512
    whole = asked(cables.target, FAR[4], HIT, use_edns=0, payload=4096)
    for reply in (whole, asked(cables.target, FAR[4], HIT, tcp=True)):
        assert not reply.flags & dns.flags.TC
        assert len(reply.answer[0]) == 100


@contextlib.contextmanager
def impatient(where) -> Iterator[None]:
    """A server that ends each connection on which nobody asks for a fifth of a second."""

    def serve(led):
        with contextlib.suppress(OSError), led:
            led.settimeout(0.2)
            while wire := led.recv(4096)[2:]:
                reply = dns.message.make_response(dns.message.from_wire(wire)).to_wire()
                led.sendall(message(reply))

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

    with inside(netns(where)):
        listener = socket.create_server((FAR[4], 53))
    threading.Thread(target=accept, daemon=True).start()
    yield
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize(
    ("answer", "said"), [(Answer("relayed"), "NOERROR"), (Answer("code", 2), "SERVFAIL")]
)
async def test_a_query_outlives_the_patience_of_its_server(cables, names, answer, said):
    late = NameRule("late/.", (), (), answer, delay_us=800_000)
    with impatient(cables.peer):
        await names.apply(cables.target, [late])
        with opened(cables.target, FAR[4], socket.SOCK_STREAM) as over:
            assert says(sent(over, dns.message.make_query(HIT, "A"))) == said


async def test_look_ups_go_on_at_once_when_the_holder_is_killed_among_them(cables, names, server):
    """Thousands a second: what was in its hands at that moment is lost, and nothing else."""
    server.sockets[0].setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, LARGE)
    before = cables.snapshot()
    for round_ in range(3):
        await names.apply(cables.target, [FAILS])
        holder = names._holders._holds[namespaces.of(cables.target).inode].process
        with opened(cables.target, FAR[4]) as over:
            over.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, LARGE)
            killed = threading.Timer(0.1 + 0.07 * round_, os.kill, (holder.pid, signal.SIGKILL))
            killed.start()
            number = since = 0
            while since < 200:
                over.send(query(number & 0xFFFF))
                number += 1
                since += holder.gone.is_set()
                if not number % 50:
                    await asyncio.sleep(0)
            said, last = [], (number - 1) & 0xFFFF
            over.settimeout(PATIENCE_SECONDS)
            while True:
                reply = dns.message.from_wire(over.recv(512))
                said.append(says(reply))
                if reply.id == last and said[-1] == ADDRESS and number - len(said) <= 200:
                    break
        assert said[-100:] == [ADDRESS] * 100
        assert "SERVFAIL" in said
        assert cables.snapshot() == before
