"""`squall-node http` between peers that are odd, old or many: it stays out of their way."""

import asyncio
import resource
import socket
import struct
import time
from pathlib import Path

import pytest

from squall.linux.holder import Holder
from squall.linux.tests.http_messages import Exchange, chance, exchange, pieces
from squall.linux.tests.http_servers import (
    counted,
    mirror,
    ordered,
    rule,
)
from squall.linux.tests.two_namespaces import TwoNamespaces

pytestmark = pytest.mark.host

NEAR = TwoNamespaces.NEAR
UNMATCHED = rule(path="/never", request_headers={"x-never": "1"})
TEAPOT = {"replace": {"code": 418}}
PATIENCE_SECONDS = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def received(connection: socket.socket, count: int) -> bytes:
    """Receive so many bytes, or what comes before the end."""
    got = bytearray()
    while len(got) < count and (part := connection.recv(min(count - len(got), 1 << 16))):
        got += part
    return bytes(got)


def to_the_end(connection: socket.socket) -> bytes:
    return received(connection, 1 << 30)


def descriptors(proxy: Holder) -> int:
    return len(list(Path(f"/proc/{proxy.pid}/fd").iterdir()))


SEED = 20_261_121


async def test_messages_that_no_rule_takes_are_the_same_bytes_both_ways(net, serving, dial, proxy):
    draw = chance(SEED)
    conversations = [[exchange(draw, last=nth == 7) for nth in range(8)] for _ in range(40)]
    expected = {id(one): one for conversation in conversations for one in conversation}
    waiting = iter(conversations)
    wrong: list[tuple[Exchange, bytes]] = []

    def serve(connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_SECONDS)
        own = chance(SEED)
        for one in next(waiting):
            heard = received(connection, len(one.request))
            if heard != one.request:
                wrong.append((one, heard))
                return
            for piece in pieces(own, one.response):
                connection.sendall(piece)

    def converse(conversation: list[Exchange]) -> None:
        own = chance(SEED)
        connection = dial(net.far)
        connection.settimeout(PATIENCE_SECONDS)
        for one in conversation:
            for piece in pieces(own, one.request):
                connection.sendall(piece)
            assert received(connection, len(one.response)) == one.response, one
        assert connection.recv(1) == b""

    serving(serve)
    await ordered(proxy, UNMATCHED)
    for conversation in conversations:
        await asyncio.to_thread(converse, conversation)
    assert wrong == []
    # It has read them all, rather than passed them on blindly.
    counters = await counted(proxy)
    assert (counters["exchanges"], counters["foreign"]) == (len(expected), 0)


ODD = [
    b"PUT / HTTP/1.1\r\nContent-Length: +5\r\n\r\nabcdeGET /2 HTTP/1.1\r\n\r\n",
    b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdefGET / HTTP/1.1\r\n\r\n",
    b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
    b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nabcde\r\n0\r\n\r\n",
    b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdefg\r\n0\r\n\r\n",
    b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: " + b"b" * 300_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 400 + b"\r\n",
    b"SSH-2.0-client\r\n",
    b"\x16\x03\x01 no TLS at all, though it begins so",
]


@pytest.mark.parametrize("said", ODD, ids=lambda said: said[:60].decode("latin-1"))
async def test_what_two_servers_would_read_differently_reaches_this_one_as_it_was_said(
    net, serving, dial, proxy, said
):
    heard = bytearray()

    def serve(connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_SECONDS)
        heard.extend(received(connection, len(said)))
        connection.sendall(b"HTTP/1.1 400 I see\r\nConnection: close\r\n\r\nno")

    serving(serve)
    await ordered(proxy, UNMATCHED)
    connection = dial(net.far)
    connection.settimeout(PATIENCE_SECONDS)
    await asyncio.to_thread(connection.sendall, said)
    assert (await asyncio.to_thread(to_the_end, connection)).endswith(b"\r\n\r\nno")
    assert bytes(heard) == said


async def test_an_answer_that_breaks_its_own_rules_reaches_its_client_as_it_is(
    net, serving, dial, proxy
):
    broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nno size\r\nmore"

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(broken)

    serving(serve)
    await ordered(proxy, UNMATCHED)
    connection = dial(net.far)
    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert await asyncio.to_thread(to_the_end, connection) == broken


UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def tear(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("who", ["server", "client"])
async def test_what_is_not_looked_into_is_torn_at_both_ends_when_it_is_at_one(
    net, serving, dial, proxy, who
):
    ends: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def watch(connection: socket.socket) -> None:
        try:
            end = "an end" if connection.recv(1) == b"" else "data"
        except ConnectionResetError:
            end = "torn"
        loop.call_soon_threadsafe(ends.put_nowait, end)

    def serve(connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_SECONDS)
        connection.recv(65536)
        connection.sendall(UPGRADED)
        connection.recv(1)
        if who == "server":
            tear(connection)
        else:
            connection.sendall(b"y")
            watch(connection)

    serving(serve)
    await ordered(proxy, UNMATCHED)
    connection = dial(net.far)
    connection.settimeout(PATIENCE_SECONDS)
    connection.sendall(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n")
    assert await asyncio.to_thread(received, connection, len(UPGRADED)) == UPGRADED
    connection.sendall(b"x")
    if who == "client":
        assert await asyncio.to_thread(connection.recv, 1) == b"y"
        tear(connection)
    else:
        await asyncio.to_thread(watch, connection)
    assert await asyncio.wait_for(ends.get(), PATIENCE_SECONDS) == "torn"


async def test_an_older_connection_is_not_torn_within_an_answer(net, serving, dial, proxy):
    head, half = b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n", b"x" * 100

    def serve(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(head + half)
            for _ in range(3):
                time.sleep(0.1)  # a server that thinks within its answer
                connection.sendall(half)

    serving(serve)
    connections = [dial(net.far) for _ in range(4)]
    for connection in connections:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(65536)
    await ordered(proxy, UNMATCHED)
    for connection in connections:
        rest = await asyncio.to_thread(received, connection, 300)
        assert len(rest) == 300
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(connection.recv, 1)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (await counted(proxy))["reset"] != len(connections):  # it is counted after it is felt
        assert time.monotonic() < deadline


LONG_SECONDS = 1.5
"""Longer than an older connection that goes on asking is left alone."""


def think(connection: socket.socket) -> None:
    time.sleep(LONG_SECONDS)  # a slow server; the test waits for its answer
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE))


def pour(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE))


LARGE = 32 << 20


@pytest.mark.parametrize("answer", [think, pour])
async def test_an_older_connection_is_torn_after_its_answer_however_long_that_takes(
    net, serving, dial, proxy, answer
):
    def serve(connection: socket.socket) -> None:
        while connection.recv(65536):
            answer(connection)

    serving(serve)
    connection = dial(net.far)
    connection.settimeout(PATIENCE_SECONDS)
    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    await ordered(proxy, UNMATCHED)
    if answer is pour:
        await asyncio.sleep(LONG_SECONDS)  # a client that does not read
    body = (await asyncio.to_thread(received, connection, LARGE + 45)).partition(b"\r\n\r\n")[2]
    assert len(body) == LARGE
    with pytest.raises(ConnectionResetError):
        await asyncio.to_thread(connection.recv, 1)


async def test_an_older_connection_that_never_rests_is_torn_all_the_same(net, serving, dial, proxy):
    def serve(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(OK)

    def ask_on() -> None:
        while True:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            if not connection.recv(65536):
                return

    serving(serve)
    connection = dial(net.far)
    connection.settimeout(PATIENCE_SECONDS)
    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert connection.recv(65536) == OK
    await ordered(proxy, UNMATCHED)
    began = time.monotonic()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await asyncio.to_thread(ask_on)
    assert time.monotonic() - began < PATIENCE_SECONDS


async def test_where_there_is_no_room_connections_go_straight_to_their_server(
    net, serving, dial, proxy
):
    most = 256
    resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (most, most))

    def ask_anew() -> bytes:
        connections.append(dial(net.far))
        connections[-1].settimeout(PATIENCE_SECONDS)
        connections[-1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return connections[-1].recv(65536).split()[1]

    connections: list[socket.socket] = []
    serving(mirror)
    await ordered(proxy, rule("Response", **TEAPOT))
    codes = [await asyncio.to_thread(ask_anew) for _ in range(most)]
    assert set(codes) == {b"418", b"200"}
    assert codes.count(b"418") > most / 4
    for connection in connections:
        connection.close()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while await asyncio.to_thread(ask_anew) != b"418":  # those that have ended make room again
        assert time.monotonic() < deadline


async def test_delays_under_way_take_no_descriptors(net, serving, dial, proxy):
    serving(mirror)
    await ordered(proxy, rule(delay_us=300_000))
    before = descriptors(proxy)
    connections = [dial(net.far) for _ in range(100)]
    began = time.monotonic()
    for connection in connections:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (await counted(proxy))["delayed"] < len(connections):
        assert time.monotonic() < deadline
    held = descriptors(proxy)
    assert held <= before + 2 * len(connections)
    for connection in connections:
        assert b"200 OK" in await asyncio.to_thread(connection.recv, 65536)
    assert time.monotonic() - began >= 0.3
