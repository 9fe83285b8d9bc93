"""`squall-node http` between peers of HTTP/2 that pause, hint, and leave."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

from squall.linux.tests.http_servers import Server, call, calls, dialled, listening, ordered, rule
from squall.linux.tests.two_namespaces import TwoNamespaces

pytestmark = pytest.mark.host

_Event = TypeVar("_Event", bound=h2.events.Event)

NEAR = TwoNamespaces.NEAR
UNMATCHED = rule(path="/never")
GET = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
OK = [(":status", "200")]
PATIENCE_SECONDS = 20.0
REFUSED_STREAM = 7
HEADERS, RESET, SETTINGS, GOAWAY = 1, 3, 4, 7
"""Kinds of frames: RFC 9113, section 6."""
EMPTY_SETTINGS = bytes((0, 0, 0, SETTINGS, 0, 0, 0, 0, 0))
HEADER = 9
"""Octets before the content of a frame."""
ANSWER_TO_1 = b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88"
"""HEADERS of stream 1, which is its end: status 200."""


class Peer:
    """One end of a connection of HTTP/2, and everything that it heard."""

    def __init__(self, connection: socket.socket, *, is_client: bool) -> None:
        connection.settimeout(PATIENCE_SECONDS)
        config = h2.config.H2Configuration(client_side=is_client, header_encoding="utf-8")
        self.state = h2.connection.H2Connection(config)
        self.heard: list[h2.events.Event] = []
        self._connection = connection
        self.state.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self._connection.sendall(self.state.data_to_send())

    def listen(self) -> list[h2.events.Event] | None:
        """Receive once; None is the end."""
        data = self._connection.recv(65536)
        if not data:
            return None
        events = self.state.receive_data(data)
        self.heard += events
        self.flush()
        return events

    def hear(self, kind: type[_Event], stream: int | None = None) -> _Event:
        """Listen until something of a kind was heard."""
        while True:
            for event in self.heard:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    return event
            assert self.listen() is not None, f"the connection has ended without {kind.__name__}"

    def last(self) -> None:
        """Stay to the end of the connection."""
        while self.listen() is not None:
            pass

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Kind, stream and content of all that comes; the library bears nothing after a GOAWAY."""
        held = b""
        while data := self._connection.recv(65536):
            held += data
            while len(held) >= HEADER and len(held) >= HEADER + (size := int.from_bytes(held[:3])):
                yield held[3], int.from_bytes(held[5:9]), held[HEADER : HEADER + size]
                held = held[HEADER + size :]

    def say(self, octets: bytes) -> None:
        """Send frames that the library would not."""
        self._connection.sendall(octets)

    def send(self, stream: int, most: int) -> int:
        """Send what there is room for, and the end of the stream behind `most` octets."""
        sent = 0
        while sent < most and (room := self.state.local_flow_control_window(stream)):
            count = min(room, most - sent, self.state.max_outbound_frame_size)
            sent += count
            self.state.send_data(stream, bytes(count), end_stream=sent == most)
        return sent

    def ask(self) -> int:
        stream: int = self.state.get_next_available_stream_id()
        self.state.send_headers(stream, GET, end_stream=True)
        self.flush()
        return stream


def said(event: Any) -> dict[Any, Any]:
    return dict(event.headers)


@contextlib.contextmanager
def serving(net: TwoNamespaces, serve: Callable[[Peer], None]) -> Iterator[None]:
    def served(connection: socket.socket) -> None:
        serve(Peer(connection, is_client=False))

    with contextlib.closing(Server(listening(net.near, "::", 80), served)):
        yield


@contextlib.contextmanager
def client(net: TwoNamespaces) -> Iterator[Peer]:
    with dialled(net.far, NEAR, 80) as connection:
        yield Peer(connection, is_client=True)


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

    def converse(peer: Peer) -> tuple[set[int], set[int], bytes]:
        """Ask until told to go; gives what was reset, with which codes, and who was answered."""
        peer.ask()
        resets, codes = set(), set()
        for kind, stream, content in peer.frames():
            if kind == SETTINGS or (kind == RESET and not answer.is_set()):
                peer.ask()
            if kind == RESET:
                resets.add(stream)
                codes.add(int.from_bytes(content))
            if kind == GOAWAY and resets:
                answer.set()
            if (kind, stream) == (HEADERS, 1):
                return resets, codes, content
        return resets, codes, b""

    with serving(net, serve):
        await ordered(proxy, UNMATCHED)
        with client(net) as peer:
            resets, codes, answered = await asyncio.to_thread(converse, peer)
    assert codes == {REFUSED_STREAM}
    assert 1 not in resets
    assert answered


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
