"""Streams go on when a fault begins or ends: the proxy comes and goes, and they feel neither."""

import asyncio
import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import h2.events
import pytest

from squall.linux.holder import Holder
from squall.linux.tests import http2_peer
from squall.linux.tests.http2_peer import GOAWAY, HEADERS, Peer
from squall.linux.tests.http_servers import counted, ordered, rule
from squall.linux.tests.http_tls import TEAPOT, context_of, made, opened, own
from squall.linux.tests.two_namespaces import TwoNamespaces

pytestmark = pytest.mark.host

NEAR, FAR = TwoNamespaces.NEAR, TwoNamespaces.FAR[0]
CODE = rule("Response", replace={"code": 418})
ASKED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
ENDS_SECONDS = 20.0
"""For a busy machine; all of it takes moments."""
DATA = 0
"""Kind of a frame."""
STREAM_SECONDS = 2.3
"""An answer that has taken so long is a stream to the proxy, with some room."""
ALL_ARE_RESET_SECONDS = 1.2
"""So long after a fault began, older connections that rest are no more."""


class Told:
    """A server that says what it is told to, when it is told."""

    def __init__(self) -> None:
        self.words: queue.Queue[bytes | None] = queue.Queue()
        self.peers: list[Any] = []

    def serve(self, connection: socket.socket) -> None:
        if not connection.recv(65536):
            return
        self.peers.append(connection.getpeername()[0])
        while (word := self.words.get()) is not None:
            connection.sendall(word)
        self.peers.append(connection.getpeername()[0])
        with contextlib.suppress(TimeoutError):
            connection.settimeout(ENDS_SECONDS)
            connection.recv(1)


@pytest.fixture
def told() -> Iterator[Told]:
    made_up = Told()
    yield made_up
    made_up.words.put(None)


async def leaving(proxy: Holder, within: float = 60.0) -> int:
    busy: int = (await proxy.ask("leave", {"within": within}))["busy"]
    return busy


async def began(connection: socket.socket, told: Told, first: bytes) -> None:
    """Ask, and hear the beginning of an answer."""
    told.words.put(first)
    await asyncio.to_thread(connection.sendall, ASKED)
    assert await heard(connection, len(first)) == first


async def heard(connection: socket.socket, count: int) -> bytes:
    connection.settimeout(ENDS_SECONDS)

    def all_of_it() -> bytes:
        got = b""
        while len(got) < count and (part := connection.recv(count - len(got))):
            got += part
        return got

    return await asyncio.to_thread(all_of_it)


async def gone(proxy: Holder) -> None:
    await asyncio.wait_for(proxy.gone.wait(), ENDS_SECONDS)


STREAMS = {
    "events": EVENTS,
    "download": LENGTH,
    "websocket": SWITCHED,
    "to the end": b"HTTP/1.0 200 OK\r\n\r\n",
}


@pytest.mark.parametrize(
    ("kind", "outgoing"),
    [*((kind, False) for kind in STREAMS), ("events", True)],
)
async def test_a_stream_goes_on_after_the_fault_and_the_proxy_ends_with_it(
    net, serving, dial, proxy, told, kind, outgoing
):
    serving(told.serve, where=net.far if outgoing else net.near)
    before = net.ruleset()
    await ordered(proxy, rule(path="/never", outgoing=outgoing))
    connection = dial(net.near, FAR) if outgoing else dial(net.far, NEAR)
    await began(connection, told, STREAMS[kind])
    assert await leaving(proxy) == 1
    for _ in range(2):
        if kind == "events":
            await event(connection, told)
        else:
            told.words.put(b"more")
            assert await heard(connection, 4) == b"more"
    assert (await proxy.ask("state"))["rules"] == []
    if kind == "websocket":
        connection.sendall(b"and back")
    told.words.put(LAST if kind == "events" else None)
    if kind == "events":
        assert await heard(connection, len(LAST)) == LAST
        assert await heard(connection, 1) == b""
    else:
        await asyncio.to_thread(connection.close)
    await gone(proxy)
    assert net.ruleset() == before
    told.words.put(None)


async def test_the_server_of_a_stream_sees_its_client_to_the_end(net, serving, dial, proxy, told):
    serving(told.serve)
    await ordered(proxy, rule(path="/never"))
    connection = dial(net.far, NEAR)
    await began(connection, told, EVENTS)
    await leaving(proxy)
    told.words.put(None)
    deadline = time.monotonic() + ENDS_SECONDS
    while len(told.peers) < 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert told.peers == [f"::ffff:{connection.getsockname()[0]}"] * 2


async def test_beside_a_stream_nothing_is_led_and_what_rests_is_closed_in_peace(
    net, serving, dial, proxy, told
):
    serving(told.serve)
    await ordered(proxy, CODE)
    resting, stream = dial(net.far, NEAR), dial(net.far, NEAR)
    told.words.put(EVENTS)
    stream.sendall(ASKED)
    assert (await heard(stream, 12)) == b"HTTP/1.1 418"
    assert await leaving(proxy) == 1
    assert await heard(resting, 1) == b""  # an end, no reset
    told.words.put(None)
    fresh = dial(net.far, NEAR)
    told.words.put(EVENTS)
    fresh.sendall(ASKED)
    assert (await heard(fresh, 12)) == b"HTTP/1.1 200"


async def test_a_fault_that_comes_while_a_stream_is_left_is_in_force_and_stays(
    net, serving, dial, proxy, told
):
    serving(told.serve)
    await ordered(proxy, rule(path="/never"))
    stream = dial(net.far, NEAR)
    await began(stream, told, EVENTS)
    assert await leaving(proxy) == 1
    await ordered(proxy, CODE)
    told.words.put(LAST)
    assert await heard(stream, len(LAST)) == LAST
    assert await heard(stream, 1) == b""
    told.words.put(None)
    fresh = dial(net.far, NEAR)
    told.words.put(EVENTS)
    fresh.sendall(ASKED)
    assert (await heard(fresh, 12)) == b"HTTP/1.1 418"
    assert (await counted(proxy))["matched"] == 1


async def test_a_stream_without_an_end_is_broken_off_after_a_while(net, serving, dial, proxy, told):
    serving(told.serve)
    await ordered(proxy, rule(path="/never"))
    stream = dial(net.far, NEAR)
    await began(stream, told, EVENTS)
    assert await leaving(proxy, within=0.2) == 1
    await gone(proxy)
    assert await heard(stream, 1) == b""


async def test_with_nothing_under_way_nobody_is_waited_for(net, serving, dial, proxy, told):
    serving(told.serve)
    await ordered(proxy, rule(path="/never"))
    resting = dial(net.far, NEAR)
    await began(resting, told, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert await leaving(proxy) == 0
    assert await heard(resting, 1) == b""


@pytest.mark.parametrize("asks_more", [False, True])
async def test_a_stream_of_http2_goes_on_and_who_asks_for_more_is_told_to_leave(
    net, proxy, asks_more
):
    more = threading.Event()

    def serve(peer: Peer) -> None:
        stream = peer.hear(h2.events.RequestReceived).stream_id
        peer.state.send_headers(stream, http2_peer.OK)
        peer.flush()
        if asks_more:
            second = peer.hear(h2.events.RequestReceived, stream + 2).stream_id
            peer.state.send_headers(second, http2_peer.OK, end_stream=True)
            peer.flush()
        more.wait(ENDS_SECONDS)
        peer.state.send_data(stream, b"more", end_stream=True)
        peer.flush()
        peer.last()

    with http2_peer.serving(net, serve):
        await ordered(proxy, rule(path="/never"))
        with http2_peer.client(net) as peer:
            stream = peer.ask()
            await asyncio.to_thread(peer.until, HEADERS, stream)
            assert await leaving(proxy) == 1
            if asks_more:
                second = peer.ask()
                frames = await asyncio.to_thread(peer.until, HEADERS, second)
                kinds = [kind for kind, *_ in frames]
                if GOAWAY not in kinds:
                    await asyncio.to_thread(peer.until, GOAWAY, 0)
            more.set()
            frames = await asyncio.to_thread(peer.until, DATA, stream)
            assert b"more" in [content for *_, content in frames]
            assert GOAWAY not in [kind for kind, *_ in frames]
        await gone(proxy)


async def test_a_stream_inside_tls_goes_on_though_its_key_is_forgotten(
    net, serving, proxy, told, tmp_path
):
    identity = made("server.test")
    context = context_of(identity, tmp_path)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as encrypted:
            told.serve(encrypted)

    serving(serve, port=443)
    await ordered(proxy, rule("Response", port=443, **TEAPOT), **own(identity))
    with opened(net.far, NEAR, identity) as stream:
        told.words.put(EVENTS)
        stream.sendall(ASKED)
        assert (await heard(stream, len(EVENTS) - 5))[:12] == b"HTTP/1.1 418"
        assert await leaving(proxy) == 1
        assert (await proxy.ask("state"))["certificates"] == []
        told.words.put(b"more")
        while not (await heard(stream, 1)).endswith(b"m"):
            pass
        assert await heard(stream, 3) == b"ore"


async def test_a_stream_that_pauses_goes_on_when_a_fault_begins_and_no_longer_than_it_is_one(
    net, serving, dial, proxy, told
):
    serving(told.serve)
    stream = dial(net.far, NEAR)
    await began(stream, told, EVENTS)
    ends = time.monotonic() + STREAM_SECONDS
    while time.monotonic() < ends:
        await event(stream, told)
        await asyncio.sleep(0.05)
    await ordered(proxy, CODE)
    await asyncio.sleep(ALL_ARE_RESET_SECONDS)
    await event(stream, told)
    with pytest.raises(ConnectionResetError):  # it asks anew, on a connection past us
        await asyncio.to_thread(asking_on, stream)
    assert (await counted(proxy))["reset"] == 1


def asking_on(connection: socket.socket) -> None:
    ends = time.monotonic() + ENDS_SECONDS
    connection.settimeout(0.05)
    while time.monotonic() < ends:
        connection.sendall(ASKED)
        with contextlib.suppress(TimeoutError):
            connection.recv(1)


async def event(connection: socket.socket, told: Told) -> None:
    more = b"4\r\nmore\r\n"
    told.words.put(more)
    assert await heard(connection, len(more)) == more
