"""`squall-node http` between real sockets: what it changes, and that nobody else sees it."""

import asyncio
import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import time
from typing import Any

import pytest

from squall.errors import InvalidFault
from squall.linux.tests.http_servers import (
    LEASE_SECONDS,
    counted,
    dialled,
    mirror,
    ordered,
    rule,
)
from squall.linux.tests.two_namespaces import TwoNamespaces, run

pytestmark = pytest.mark.host

NEAR, NEAR_V6 = TwoNamespaces.NEAR, TwoNamespaces.NEAR_V6
FAR = TwoNamespaces.FAR[0]
UNMATCHED = rule(path="/never")


def ask(
    netns: str,
    address: str = NEAR,
    path: str = "/a?q=0",
    body: str | None = None,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    port: int = 80,
) -> tuple[http.client.HTTPResponse, bytes]:
    client = http.client.HTTPConnection(address, port, timeout=5)
    client.sock = dialled(netns, address, port)
    client.request(method, path, body, headers or {})
    response = client.getresponse()
    with contextlib.closing(client):
        return response, response.read()


def exactly(connection: socket.socket, expected: bytes) -> bytes:
    """Receive as much as was expected, or up to the end."""
    got = b""
    while len(got) < len(expected) and (part := connection.recv(65536)):
        got += part
    return got


@pytest.mark.parametrize("address", [NEAR, NEAR_V6, "127.0.0.1", "::1"])
async def test_the_server_sees_its_client_and_the_client_its_server(
    net, serving, dial, proxy, address
):
    serving(mirror)
    await ordered(proxy, UNMATCHED)
    connection = dial(net.near if address in ("127.0.0.1", "::1") else net.far, address)
    assert connection.getpeername()[:2] == (address, 80)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, _ = connection.recv(65536).partition(b"\r\n\r\n")
    assert b"200 OK" in head
    own, port = connection.getsockname()[:2]
    asked = json.loads(ask_again(connection))
    assert asked["peer"] == [own if ":" in own else f"::ffff:{own}", port]
    assert (await counted(proxy))["exchanges"] == 2


def ask_again(connection: socket.socket) -> bytes:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    whole = exactly(connection, b"x" * 65536)
    return whole.partition(b"\r\n\r\n")[2]


ODD = [
    b"GET  / HTTP/1.1\r\n\r\n",  # two spaces: not HTTP to us
    (
        b"POST /a%2fb?x=1;y HTTP/1.1\r\nhOsT:   x \r\nX:\r\nx: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
        b"3;e=1\r\nabc\r\n0\r\nT: 1\r\n\r\nGET /next HTTP/1.0\r\n\r\n"
    ),
    b"PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcdeGET / HTTP/1.1\r\n\r\n",
    b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"\x00\x01\x02 something else\r\n",
]
ANSWERS = [
    b"HTTP/1.1 200 Very  well\r\nsErVer:x\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No\r\n\r\n",
    (
        b"HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\na\r\n0\r\n\r\n"
    ),
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
    b"garbage",
]


@pytest.mark.parametrize("request_bytes", ODD)
@pytest.mark.parametrize("answer", ANSWERS)
async def test_what_no_rule_takes_passes_byte_by_byte(
    net, serving, dial, proxy, request_bytes, answer
):
    heard = bytearray()

    def serve(connection: socket.socket) -> None:
        # A pipelined second request is sent only when the first has its answer.
        first = connection.recv(65536)
        heard.extend(first)
        connection.sendall(answer)
        connection.settimeout(5)
        while part := connection.recv(65536):
            heard.extend(part)

    serving(serve)
    await ordered(proxy, UNMATCHED)
    connection = dial(net.far, NEAR)
    connection.sendall(request_bytes)
    assert await asyncio.to_thread(exactly, connection, answer) == answer
    connection.shutdown(socket.SHUT_WR)
    await asyncio.to_thread(exactly, connection, b"x")  # the end of the server
    assert request_bytes.startswith(bytes(heard))
    assert bytes(heard) == request_bytes or b"1.1 20" in answer  # whose second request is open


CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"replace": {"path": "/new"}}, {"path": "/new?q=0"}),
    ({"replace": {"queries": {"q": "1", "z": "ä"}}}, {"path": "/a?q=1&z=%C3%A4"}),
    ({"replace": {"method": "PUT"}}, {"method": "PUT"}),
    ({"replace": {"body": base64.b64encode(b"hi").decode()}}, {"body": "hi"}),
    ({"patch": {"queries": [["q", "1"]]}}, {"path": "/a?q=0&q=1"}),
    ({"patch": {"body": {"b": None, "c": 3}}}, {"body": '{"a":1,"c":3}'}),
]


@pytest.mark.parametrize(("action", "expected"), CHANGES)
async def test_a_request_is_changed_before_its_server_sees_it(
    net, serving, proxy, action, expected
):
    serving(mirror)
    await ordered(proxy, rule(**action))
    _, body = ask(net.far, body='{"a":1,"b":2}', method="POST")
    asked = json.loads(body)
    assert {name: asked[name] for name in expected} == expected


async def test_headers_are_replaced_in_place_or_added(net, serving, proxy):
    serving(mirror)
    headers = {
        "replace": {"headers": {"X-A": "9"}},
        "patch": {"headers": [["X-B", "1"], ["X-B", "2"]]},
    }
    await ordered(proxy, rule(**headers), rule("Response", **headers))
    response, body = ask(net.far, headers={"x-a": "1"})
    asked = json.loads(body)["headers"]
    assert [pair for pair in asked if pair[0].startswith(("x-", "X-"))] == [
        ["X-A", "9"],
        ["X-B", "1"],
        ["X-B", "2"],
    ]
    assert response.getheader("X-A") == "9"
    assert response.getheader("x-b") == "1, 2"


async def test_a_response_is_changed_before_its_client_sees_it(net, serving, proxy):
    serving(mirror)
    patch = {"body": {"headers": None, "peer": None, "new": [1]}}
    await ordered(proxy, rule("Response", code=200, replace={"code": 503}, patch=patch))
    response, body = ask(net.far)
    assert (response.status, response.reason) == (503, "Service Unavailable")
    assert json.loads(body) == {"body": "", "method": "GET", "path": "/a?q=0", "new": [1]}
    response, body = ask(net.far, method="HEAD")
    assert (response.status, body) == (503, b"")
    assert (await counted(proxy))["replaced"] == 2


async def test_an_abort_is_a_reset_without_an_answer(net, serving, proxy):
    serving(mirror)
    for target in ("Request", "Response"):
        await ordered(proxy, rule(target, abort=True, path="/bad*"))
        with pytest.raises(ConnectionResetError):
            ask(net.far, path="/bad/1")
        assert ask(net.far, path="/good")[0].status == 200


async def test_a_delay_is_felt_as_asked(net, serving, proxy):
    serving(mirror)
    await ordered(proxy, rule(delay_us=200_000, method="get"))
    start = time.monotonic()
    ask(net.far)
    assert 0.2 <= time.monotonic() - start < 0.4
    counters = await counted(proxy)
    assert (counters["delayed"], counters["delay_us_sum"]) == (1, 200_000)


SELECTORS: list[tuple[dict[str, Any], bool]] = [
    ({"path": "/a"}, True),
    ({"path": "/b*"}, False),
    ({"method": "POST"}, False),
    ({"request_headers": {"x-a": "1"}}, True),
    ({"request_headers": {"x-a": "1", "x-b": "2"}}, False),
    ({"code": 200}, True),
    ({"code": 404}, False),
    ({"response_headers": {"CONTENT-type": "application/json"}}, True),
    ({"response_headers": {"content-type": "text/html"}}, False),
    ({"percent": 0}, False),
]


@pytest.mark.parametrize(("selector", "taken"), SELECTORS)
async def test_a_rule_takes_what_its_selector_says(net, serving, proxy, selector, taken):
    serving(mirror)
    await ordered(proxy, rule("Response", replace={"code": 418}, **selector))
    response, _ = ask(net.far, headers={"X-A": "1"})
    assert response.status == (418 if taken else 200)


async def test_half_of_the_exchanges_are_half_of_them_and_the_same_for_a_seed(net, serving, proxy):
    serving(mirror)
    runs = []
    for seed in (3, 3, 4):
        await ordered(proxy)
        await ordered(proxy, rule("Response", percent=50, seed=seed, replace={"code": 503}))
        client = http.client.HTTPConnection(NEAR, 80, timeout=5)
        client.sock = dialled(net.far, NEAR, 80)
        codes = []
        for _ in range(400):
            client.request("GET", "/")
            response = client.getresponse()
            response.read()
            codes.append(response.status)
        client.close()
        runs.append(codes)
    assert 160 <= runs[0].count(503) <= 240
    assert runs[0] == runs[1] != runs[2]


async def test_outgoing_calls_are_met_too(net, serving, proxy):
    serving(mirror, where=net.far)
    await ordered(proxy, rule("Response", outgoing=True, replace={"code": 418}))
    for address in (FAR, TwoNamespaces.FAR[2]):
        response, body = ask(net.near, address)
        assert response.status == 418
        assert json.loads(body)["peer"][0].removeprefix("::ffff:") in (NEAR, NEAR_V6)


async def test_a_nonsensical_rule_is_refused_and_changes_nothing(net, serving, proxy):
    serving(mirror)
    await ordered(proxy, rule("Response", replace={"code": 418}))
    for wrong in (rule(port=0), rule(percent=101), rule(replace={"headers": {"a b": "1"}})):
        with pytest.raises(InvalidFault, match="rule of a"):
            await ordered(proxy, wrong)
    assert ask(net.far)[0].status == 418


async def test_connections_that_are_already_come_again_within_a_second(net, serving, dial, proxy):
    serving(mirror)
    resting = dial(net.far, NEAR)
    resting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in resting.recv(65536)
    start = time.monotonic()
    await ordered(proxy, rule("Response", replace={"code": 418}))
    with pytest.raises(ConnectionResetError):
        await asyncio.to_thread(resting.recv, 1)
    assert time.monotonic() - start < 1
    assert ask(net.far)[0].status == 418
    assert (await counted(proxy))["reset"] == 1


async def test_after_a_sigkill_the_server_is_met_at_once_and_nothing_is_left(net, serving, proxy):
    serving(mirror)
    serving(mirror, where=net.far)
    before = net.ruleset()
    await ordered(proxy, rule(abort=True), rule(outgoing=True, abort=True))
    os.kill(proxy.pid, signal.SIGKILL)
    await asyncio.wait_for(proxy.gone.wait(), 5)
    assert ask(net.far)[0].status == 200
    assert ask(net.near, FAR)[0].status == 200
    assert net.ruleset() == before
    listeners = run("nsenter", f"--net={net.near}", "ss", "-Hltn")
    assert "squall" not in listeners
    assert len(listeners.splitlines()) == 1


async def test_what_is_under_way_ends_well_when_the_faults_are_taken_back(
    net, serving, dial, proxy
):
    def slow(connection: socket.socket) -> None:
        if not connection.recv(65536):
            return
        time.sleep(0.3)  # a slow server; the test waits for its answer, not for the time
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.recv(1)

    serving(slow)
    await ordered(proxy, UNMATCHED)
    resting, busy = dial(net.far, NEAR), dial(net.far, NEAR)
    busy.sendall(b"GET / HTTP/1.1\r\n\r\n")
    deadline = time.monotonic() + 5
    while (await counted(proxy))["exchanges"] == 0:
        assert time.monotonic() < deadline
    await proxy.quit()
    assert busy.recv(65536).endswith(b"ok")
    assert resting.recv(1) == b""  # an end, no reset


async def test_a_client_that_resets_is_a_reset_to_the_server(net, serving, dial, proxy):
    ended: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        try:
            connection.recv(1)
            end = "end"
        except ConnectionResetError:
            end = "reset"
        loop.call_soon_threadsafe(ended.put_nowait, end)

    serving(serve)
    await ordered(proxy, UNMATCHED)
    client = dial(net.far, NEAR)
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    deadline = time.monotonic() + 5
    while (await counted(proxy))["exchanges"] == 0:
        assert time.monotonic() < deadline
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert await asyncio.wait_for(ended.get(), LEASE_SECONDS) == "reset"


async def test_a_sidecar_in_the_way_does_not_hide_the_server(net, serving, proxy):
    def sidecar(connection: socket.socket) -> None:
        with dialled(net.near, "127.0.0.1", 80) as onwards:
            onwards.sendall(connection.recv(65536))
            connection.sendall(onwards.recv(65536))

    serving(mirror)
    serving(sidecar, port=15006)
    chain = "chain ip mesh in { type nat hook prerouting priority dstnat; }"
    redirect = "rule ip mesh in tcp dport 80 redirect to :15006"
    script = f"add table ip mesh; add {chain}; add {redirect}"
    run("nsenter", f"--net={net.near}", "nft", script)
    await ordered(proxy, rule("Response", replace={"code": 418}))
    assert ask(net.far)[0].status == 418
    assert (await counted(proxy))["matched"] == 1
