"""Changes that touch where a message ends: nobody waits in vain, and nothing is left over."""

import asyncio
import contextlib
import http.client
import json
import socket

import h2.events
import pytest

from squall.errors import InvalidFault
from squall.linux.tests import http2_peer
from squall.linux.tests.http2_peer import Peer, said
from squall.linux.tests.http_servers import counted, dialled, mirror, ordered, rule
from squall.linux.tests.two_namespaces import TwoNamespaces

pytestmark = pytest.mark.host

NEAR = TwoNamespaces.NEAR
BODY = b'{"a":1}'
ENCODED = b"\x1f\x8b encoded"

OF_THE_WIRE = (
    "Content-Length",
    "transfer-encoding",
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "Upgrade",
    "TE",
    "Trailer",
    "Expect",
    "HTTP2-Settings",
)


@pytest.mark.parametrize("name", OF_THE_WIRE)
async def test_a_header_that_says_where_a_message_ends_is_refused(proxy, name):
    for action in (
        {"replace": {"headers": {name: "1"}}},
        {"patch": {"headers": [[name, "1"]]}},
        {"grpc": {"trailers": {name: "1"}}},
    ):
        with pytest.raises(InvalidFault, match=f"{name} follows from how a message travels"):
            await ordered(proxy, rule("Response", **action))


@pytest.mark.parametrize(("asked", "seen"), [("GET", "HEAD"), ("HEAD", "GET")])
async def test_a_method_that_is_replaced_leaves_no_body_over_and_nobody_waiting(
    net, serving, proxy, asked, seen
):
    serving(mirror)
    await ordered(proxy, rule(path="/a", replace={"method": seen}))
    client = http.client.HTTPConnection(NEAR, 80, timeout=5)
    with contextlib.closing(client):
        for _ in range(2):
            client.sock = client.sock or dialled(net.far, NEAR, 80)
            await asyncio.to_thread(client.request, asked, "/a")
            response = await asyncio.to_thread(client.getresponse)
            assert (response.status, response.read()) == (200, b"")
            if asked == "HEAD":
                client.close()  # what the server says on is for nobody
        client.sock = client.sock or dialled(net.far, NEAR, 80)
        client.request("GET", "/b")
        assert json.loads(client.getresponse().read())["path"] == "/b"


async def test_where_a_server_is_asked_for_a_head_a_replaced_body_is_there(net, serving, proxy):
    serving(mirror)
    new = {"replace": {"body": "aGk="}}
    await ordered(proxy, rule(replace={"method": "HEAD"}), rule("Response", **new))
    client = http.client.HTTPConnection(NEAR, 80, timeout=5)
    client.sock = dialled(net.far, NEAR, 80)
    with contextlib.closing(client):
        client.request("GET", "/")
        assert client.getresponse().read() == b"hi"


async def test_a_head_of_an_answer_without_an_end_is_not_waited_for(net, serving, dial, proxy):
    def serve(connection: socket.socket) -> None:
        assert connection.recv(65536).startswith(b"GET")
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        connection.recv(65536)

    serving(serve)
    await ordered(proxy, rule(replace={"method": "GET"}))
    connection = dial(net.far)
    connection.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await asyncio.to_thread(connection.makefile("rb").read)
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize(("asked", "seen"), [("GET", "HEAD"), ("HEAD", "GET")])
async def test_the_same_in_http2(net, proxy, asked, seen):
    def serve(peer: Peer) -> None:
        request = peer.hear(h2.events.RequestReceived)
        head = [*http2_peer.OK, ("content-length", "7"), ("x-method", said(request)[":method"])]
        peer.state.send_headers(request.stream_id, head, end_stream=seen == "HEAD")
        if seen == "GET":
            peer.state.send_data(request.stream_id, BODY, end_stream=True)
        peer.flush()
        peer.last()

    with http2_peer.serving(net, serve):
        await ordered(proxy, rule(replace={"method": seen}))
        with http2_peer.client(net) as peer:
            peer.ask([(":method", asked), *http2_peer.GET[1:]])
            await asyncio.to_thread(peer.hear, h2.events.StreamEnded)
            heard = [type(event) for event in peer.heard]
            assert h2.events.DataReceived not in heard
            answer = said(peer.hear(h2.events.ResponseReceived))
            assert answer["x-method"] == seen
            assert answer.get("content-length", "0") == ("7" if asked == "HEAD" else "0")


async def test_a_host_that_is_replaced_is_the_one_in_front_of_the_path_in_http2(net, proxy):
    def serve(peer: Peer) -> None:
        request = peer.hear(h2.events.RequestReceived)
        head = said(request)
        answer = [*http2_peer.OK, ("x-host", f"{head[':authority']} {head.get('host')}")]
        peer.state.send_headers(request.stream_id, answer, end_stream=True)
        peer.flush()
        peer.last()

    with http2_peer.serving(net, serve):
        await ordered(proxy, rule(replace={"headers": {"Host": "other.test:81"}}))
        with http2_peer.client(net) as peer:
            peer.ask()
            await asyncio.to_thread(peer.hear, h2.events.StreamEnded)
            assert said(peer.hear(h2.events.ResponseReceived))["x-host"] == "other.test:81 None"


def encoding(connection: socket.socket) -> None:
    """Answer encoded where that is accepted, as servers do."""
    while asked := connection.recv(65536):
        body = ENCODED if b"gzip" in asked else BODY
        head = b"HTTP/1.1 200 OK\r\nX-Accepts: %b\r\nContent-Length: %d\r\n\r\n"
        accepted = [line for line in asked.split(b"\r\n") if line.lower().startswith(b"accept-e")]
        connection.sendall(head % (b" ".join(accepted), len(body)) + body)


async def test_who_may_have_to_be_patched_is_asked_for_without_an_encoding(net, serving, proxy):
    serving(encoding)
    await ordered(proxy, rule("Response", path="/p*", patch={"body": {"b": 2}}))
    client = http.client.HTTPConnection(NEAR, 80, timeout=5)
    client.sock = dialled(net.far, NEAR, 80)
    with contextlib.closing(client):
        found = []
        for path, accepted in (("/p", "gzip, br"), ("/other", "gzip, br"), ("/p", "")):
            client.putrequest("GET", path, skip_accept_encoding=True)
            if accepted:
                client.putheader("Accept-Encoding", accepted)
            client.endheaders()
            response = client.getresponse()
            found.append((response.getheader("X-Accepts"), response.read()))
    assert found == [
        ("Accept-Encoding: identity", b'{"a":1,"b":2}'),
        ("Accept-Encoding: gzip, br", ENCODED),
        ("", b'{"a":1,"b":2}'),
    ]
    counters = await counted(proxy)
    assert (counters["patched"], counters["unpatchable"]) == (2, 0)


async def test_who_may_have_to_be_patched_in_http2_is_asked_for_without_an_encoding(net, proxy):
    def serve(peer: Peer) -> None:
        request = peer.hear(h2.events.RequestReceived)
        plain = said(request)["accept-encoding"] == "identity"
        peer.state.send_headers(request.stream_id, http2_peer.OK)
        peer.state.send_data(request.stream_id, BODY if plain else ENCODED, end_stream=True)
        peer.flush()
        peer.last()

    with http2_peer.serving(net, serve):
        await ordered(proxy, rule("Response", patch={"body": {"b": 2}}))
        with http2_peer.client(net) as peer:
            peer.ask([*http2_peer.GET, ("accept-encoding", "gzip")])
            assert (await asyncio.to_thread(peer.hear, h2.events.DataReceived)).data == (
                b'{"a":1,"b":2}'
            )
