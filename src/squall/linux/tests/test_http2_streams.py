"""`squall-node http` between programs that use all of HTTP/2: it stays as it was."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

import h2.events
import h2.exceptions
import h2.settings
import pytest

from squall.linux.tests.http2_peer import (
    GET,
    GOAWAY,
    HEADERS,
    OK,
    RESET,
    SETTINGS,
    UNMATCHED,
    Peer,
    client,
    said,
    serving,
)
from squall.linux.tests.http_servers import Server, listening, ordered, rule

pytestmark = pytest.mark.host

MOST_STREAMS = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
CONNECT_PROTOCOL = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
CANCEL = 8
OK_WITH_MORE = b"\x88"
"""Status 200, as the first of a connection or any other."""


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return len(content).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + content


def taken_back(stream: int) -> bytes:
    return frame(RESET, 0, stream, CANCEL.to_bytes(4))


def answering(heard: list[dict[str, str]]) -> Callable[[Peer], None]:
    """Answer every request with nothing, and note it."""

    def serve(peer: Peer) -> None:
        while (events := peer.listen()) is not None:
            for event in events:
                if isinstance(event, h2.events.RequestReceived):
                    heard.append(said(event))
                    with contextlib.suppress(h2.exceptions.ProtocolError):  # it was taken back
                        peer.state.send_headers(event.stream_id, OK, end_stream=True)
            peer.flush()

    return serve


async def test_a_client_hears_the_limits_of_its_server_and_may_speak_other_protocols(net, proxy):
    def serve(connection: socket.socket) -> None:
        limits = {MOST_STREAMS: 7, CONNECT_PROTOCOL: 1}
        peer = Peer(connection, is_client=False, limits=limits)
        asked = peer.hear(h2.events.RequestReceived)
        spoken = peer.hear(h2.events.DataReceived).data
        head = [(":status", "200"), ("x-by", said(asked)[":protocol"])]
        peer.state.send_headers(asked.stream_id, head)
        peer.state.send_data(asked.stream_id, spoken[::-1], end_stream=True)
        peer.flush()
        peer.last()

    with contextlib.closing(Server(listening(net.near, "::", 80), serve)):
        await ordered(proxy, UNMATCHED)
        with client(net) as peer:
            heard = await asyncio.to_thread(peer.hear, h2.events.RemoteSettingsChanged)
            assert heard.changed_settings[MOST_STREAMS].new_value == 7
            assert heard.changed_settings[CONNECT_PROTOCOL].new_value == 1
            head = [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]]
            peer.state.send_headers(1, head)
            peer.state.send_data(1, b"abc")
            peer.flush()
            answer = await asyncio.to_thread(peer.hear, h2.events.ResponseReceived)
            assert said(answer)["x-by"] == "websocket"
            assert (await asyncio.to_thread(peer.hear, h2.events.DataReceived)).data == b"cba"


async def test_a_request_that_names_its_host_in_a_header_only_arrives_so(net, proxy):
    heard: list[dict[str, str]] = []
    head = [one for one in GET if one[0] != ":authority"] + [("host", "b.test")]
    with serving(net, answering(heard)):
        await ordered(proxy, UNMATCHED)
        with client(net) as peer:
            await asyncio.to_thread(peer.hear, h2.events.ResponseReceived, peer.ask(head))
    assert heard == [dict(head)]


async def test_many_requests_taken_back_at_once_do_not_end_the_connection(net, proxy):
    heard: list[dict[str, str]] = []
    with serving(net, answering(heard)):
        await ordered(proxy, UNMATCHED)
        with client(net) as peer:
            await asyncio.to_thread(peer.hear, h2.events.SettingsAcknowledged)
            octets = b""
            for stream in range(1, 200, 2):
                peer.state.send_headers(stream, GET, end_stream=True)
                octets += peer.state.data_to_send() + taken_back(stream)
                peer.state.reset_stream(stream, CANCEL)
                peer.state.data_to_send()
            peer.say(octets)
            await asyncio.to_thread(peer.hear, h2.events.ResponseReceived, peer.ask())


async def test_answers_to_streams_given_up_long_ago_do_not_end_the_connection(net, proxy):
    many, at_once = 1300, 50

    def serve(peer: Peer) -> None:
        """Begin every answer, and go on with all of them at the last request."""
        asked = []
        for kind, stream, _ in peer.frames():
            if kind == HEADERS:
                asked.append(stream)
                last = len(asked) > many
                late = [frame(0, 1, one, b"late") for one in asked[:-1]] if last else []
                peer.say(b"".join((*late, frame(HEADERS, 5 if last else 4, stream, OK_WITH_MORE))))

    def converse(peer: Peer) -> None:
        for _ in range(many // at_once):
            streams = {peer.ask() for _ in range(at_once)}
            for kind, stream, _ in peer.frames():
                if kind == HEADERS:
                    peer.say(taken_back(stream))
                    peer.state.reset_stream(stream, CANCEL)
                    peer.state.data_to_send()
                    streams.remove(stream)
                if not streams:
                    break
        frames = peer.until(HEADERS, peer.ask())
        assert GOAWAY not in [kind for kind, _, _ in frames]

    with serving(net, serve):
        await ordered(proxy, UNMATCHED)
        with client(net) as peer:
            await asyncio.to_thread(converse, peer)


async def test_a_client_whose_server_dies_loses_its_connection_as_well(net, proxy):
    def serve(peer: Peer) -> None:
        stream = peer.hear(h2.events.RequestReceived).stream_id
        peer.state.send_headers(stream, OK)
        peer.state.send_data(stream, b"a part")
        peer.flush()

    def heard(peer: Peer) -> list[int]:
        kinds = []
        with contextlib.suppress(ConnectionResetError):
            kinds += [kind for kind, stream, _ in peer.frames() if stream]
        return kinds

    with serving(net, serve):
        await ordered(proxy, UNMATCHED)
        with client(net) as peer:
            peer.ask()
            kinds = await asyncio.to_thread(heard, peer)
    assert kinds == [HEADERS, 0]


async def test_at_the_end_a_client_is_told_before_it_loses_its_connection(net, proxy):
    def serve(peer: Peer) -> None:
        peer.hear(h2.events.RequestReceived)
        peer.last()

    with serving(net, serve):
        await ordered(proxy, UNMATCHED)
        with client(net) as peer:
            peer.ask()
            await asyncio.to_thread(peer.until, SETTINGS, 0)
            quitting = asyncio.create_task(proxy.quit())
            told = await asyncio.to_thread(peer.until, GOAWAY, 0)
            assert RESET not in [kind for kind, _, _ in told]
            await quitting


async def test_a_delayed_request_that_is_given_up_never_reaches_its_server(net, proxy):
    heard: list[dict[str, str]] = []
    with serving(net, answering(heard)):
        await ordered(proxy, rule(delay_us=300_000))
        with client(net) as peer:
            for _ in range(2):
                given_up = peer.ask()
                peer.say(taken_back(given_up))
            await asyncio.to_thread(peer.hear, h2.events.ResponseReceived, peer.ask())
    assert len(heard) == 1


async def test_a_changed_body_keeps_its_trailers(net, proxy):
    def serve(peer: Peer) -> None:
        stream = peer.hear(h2.events.RequestReceived).stream_id
        peer.state.send_headers(stream, OK)
        peer.state.send_data(stream, b'{"a": 1}')
        peer.state.send_headers(stream, [("x-end", "1")], end_stream=True)
        peer.flush()
        peer.last()

    with serving(net, serve):
        await ordered(proxy, rule("Response", patch={"body": {"b": 2}}))
        with client(net) as peer:
            stream = peer.ask()
            trailers = await asyncio.to_thread(peer.hear, h2.events.TrailersReceived, stream)
            assert said(trailers) == {"x-end": "1"}
            assert peer.hear(h2.events.DataReceived).data == b'{"a":1,"b":2}'
