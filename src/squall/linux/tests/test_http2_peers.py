"""`squall-node http` between peers of HTTP/2 that pause, hint, and leave."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable

import h2.events
import h2.exceptions
import pytest

from squall.linux.tests.http2_peer import (
    ANSWER_TO_1,
    EMPTY_SETTINGS,
    GET,
    GOAWAY,
    HEADERS,
    NEAR,
    OK,
    PATIENCE_SECONDS,
    REFUSED_STREAM,
    RESET,
    UNMATCHED,
    Peer,
    client,
    said,
    serving,
)
from squall.linux.tests.http_servers import Server, call, calls, dialled, listening, ordered, rule

pytestmark = pytest.mark.host


async def test_hints_of_a_server_reach_its_client_before_the_answer(net, proxy):
    def serve(peer: Peer) -> None:
        stream = peer.hear(h2.events.RequestReceived).stream_id
        peer.state.send_headers(stream, [(":status", "103"), ("link", "</a>")])
        peer.state.send_headers(stream, OK, end_stream=True)
        peer.flush()
        peer.last()

    with serving(net, serve):
        await ordered(proxy, UNMATCHED)
        with client(net) as peer:
            stream = peer.ask()
            answer = await asyncio.to_thread(peer.hear, h2.events.ResponseReceived, stream)
    assert said(answer) == {":status": "200"}
    [hint] = [one for one in peer.heard if isinstance(one, h2.events.InformationalResponseReceived)]
    assert said(hint) == {":status": "103", "link": "</a>"}


async def test_a_body_that_waits_to_be_asked_for_is_asked_for(net, proxy):
    def serve(peer: Peer) -> None:
        stream = peer.hear(h2.events.RequestReceived).stream_id
        peer.state.send_headers(stream, [(":status", "100")])
        peer.flush()
        body = peer.hear(h2.events.DataReceived).data
        peer.state.send_headers(stream, OK)
        peer.state.send_data(stream, body[::-1], end_stream=True)
        peer.flush()
        peer.last()

    with serving(net, serve):
        await ordered(proxy, UNMATCHED)
        with client(net) as peer:
            head = [(":method", "PUT"), *GET[1:], ("expect", "100-continue")]
            peer.state.send_headers(1, head)
            peer.flush()
            await asyncio.to_thread(peer.hear, h2.events.InformationalResponseReceived)
            peer.state.send_data(1, b"abc", end_stream=True)
            peer.flush()
            assert (await asyncio.to_thread(peer.hear, h2.events.DataReceived)).data == b"cba"


async def test_a_server_that_leaves_is_left_and_what_it_did_not_take_may_be_asked_again(net, proxy):
    answer = threading.Event()

    def serve(peer: Peer) -> None:
        first = peer.hear(h2.events.RequestReceived).stream_id
        peer.state.close_connection(last_stream_id=first)
        peer.flush()
        assert answer.wait(PATIENCE_SECONDS)
        peer.say(ANSWER_TO_1)
        for _ in peer.frames():
            pass

    def converse(peer: Peer) -> tuple[int, list[tuple[int, int, bytes]]]:
        """Ask once before it leaves and once after; gives the second code, and all of the end."""
        first = peer.ask()
        peer.until(GOAWAY, 0)  # without being asked again
        second = peer.ask()
        *_, (_, _, code) = peer.until(RESET, second)
        answer.set()
        return int.from_bytes(code), peer.until(HEADERS, first)

    with serving(net, serve):
        await ordered(proxy, UNMATCHED)
        with client(net) as peer:
            code, frames = await asyncio.to_thread(converse, peer)
    assert code == REFUSED_STREAM
    assert RESET not in [kind for kind, _, _ in frames]


def pour(size: int) -> Callable[[Peer], None]:
    """Answer every request with so many octets, as fast as they are taken."""

    def serve(peer: Peer) -> None:
        left: dict[int, int] = {}
        while (events := peer.listen()) is not None:
            for event in events:
                if isinstance(event, h2.events.RequestReceived):
                    peer.state.send_headers(event.stream_id, OK)
                    left[event.stream_id] = size
            for stream, count in left.items():
                left[stream] -= peer.send(stream, count)
            peer.flush()

    return serve


def read(peer: Peer, stream: int, size: int) -> None:
    """Read one stream, and let the others wait."""
    while size > 0:
        events = peer.listen()
        assert events is not None
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id == stream:
                count = len(event.data or b"")
                size -= count
                with contextlib.suppress(h2.exceptions.StreamClosedError):
                    peer.state.increment_flow_control_window(max(1, count), stream)
        peer.flush()


async def test_a_server_that_greets_first_is_read_all_the_same(net, proxy):
    greeted = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(EMPTY_SETTINGS)
        greeted.set()
        calls(connection)

    with contextlib.closing(Server(listening(net.near, "::", 80), serve)):
        await ordered(proxy, rule(grpc={"status": 8}))
        for _ in range(5):
            greeted.clear()
            with dialled(net.far, NEAR, 80) as connection:
                assert await asyncio.to_thread(greeted.wait, PATIENCE_SECONDS)
                connection.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    assert connection.recv(1, socket.MSG_PEEK) == b"\x00"
                connection.settimeout(PATIENCE_SECONDS)
                [called] = await asyncio.to_thread(call, connection, "/p.S/M")
            assert called.headers["grpc-status"] == "8"


async def test_streams_that_nobody_reads_do_not_hold_up_others(net, proxy):
    stalled, size = 12, 1 << 20
    with serving(net, pour(size)):
        await ordered(proxy, UNMATCHED)
        with client(net) as peer:
            peer.state.increment_flow_control_window(1 << 30)
            for stream in [peer.ask() for _ in range(stalled)]:
                await asyncio.to_thread(peer.hear, h2.events.DataReceived, stream)
            await asyncio.to_thread(read, peer, peer.ask(), size)
