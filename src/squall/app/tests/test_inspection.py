import asyncio
import socket
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry, Gauge

from squall.api.fake_cluster import FakeCluster
from squall.app.admittance import REMEMBERED_SECONDS
from squall.app.inspection import address_of, health_served
from squall.app.metrics_page import metrics_served
from squall.clock import FakeClock
from testbed.health import ask


class Reviews(FakeCluster):
    """An API server that knows tokens, and lets `reader` read metrics."""

    async def create(self, resource, obj):
        self._called("create", resource, "")
        if resource.kind == "TokenReview":
            user = {"reader-token": "reader", "other-token": "other"}.get(obj["spec"]["token"])
            status = {"authenticated": True, "user": {"username": user}} if user else {}
        else:
            path = obj["spec"]["nonResourceAttributes"]
            assert path == {"path": "/metrics", "verb": "get"}
            status = {"allowed": obj["spec"]["user"] == "reader"}
        return obj | {"status": status}


@pytest.fixture
def registry():
    registry = CollectorRegistry()
    Gauge("answer", "to everything", registry=registry).set(42)
    return registry


async def get(port, path="/metrics", *headers, method="GET", host="127.0.0.1"):
    reader, writer = await asyncio.open_connection(host, port)
    lines = [f"{method} {path} HTTP/1.1", "Host: here", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    octets = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(octets.split()[1]), octets.partition(b"\r\n\r\n")[2].decode()


def bearing(token):
    return f"Authorization: Bearer {token}"


async def test_alive_and_ready_are_two_questions(tmp_path):
    lacking = ["pods are not listed yet"]
    socket = tmp_path / "health"
    socket.touch()  # of an earlier process
    async with health_served(socket, lambda: lacking[0]):
        assert await asyncio.to_thread(ask, socket, ready=False) == (True, "ok")
        unready = (False, "not ready: pods are not listed yet")
        assert await asyncio.to_thread(ask, socket, ready=True) == unready
        lacking[0] = ""
        assert await asyncio.to_thread(ask, socket, ready=True) == (True, "ok")
    assert not socket.exists()


def test_nobody_there_is_not_healthy(tmp_path):
    healthy, said = ask(tmp_path / "none", ready=False)
    assert not healthy
    assert "No such file" in said


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        (["Authorization: Basic cmVhZGVyLXRva2Vu"], 401),
        ([bearing("")], 401),
        ([bearing("made-up")], 401),
        ([bearing("other-token")], 403),
        ([bearing("reader-token"), bearing("reader-token")], 401),
        ([bearing("reader-token")], 200),
    ],
)
async def test_metrics_are_for_those_whom_the_api_server_lets(registry, headers, status):
    async with metrics_served("127.0.0.1:0", Reviews(), FakeClock(), registry=registry) as port:
        found, text = await get(port, "/metrics", *headers)
    assert found == status
    assert ("answer 42.0" in text) == (status == 200)


async def test_an_empty_address_is_all_of_both_families(registry):
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as free:
        port = free.getsockname()[1]
    async with metrics_served(f":{port}", Reviews(), FakeClock(), registry=registry):
        for host in ("127.0.0.1", "::1"):
            assert (await get(port, "/metrics", bearing("reader-token"), host=host))[0] == 200


async def test_the_api_server_is_asked_once_a_minute(registry):
    cluster, clock = Reviews(), FakeClock()
    async with metrics_served("127.0.0.1:0", cluster, clock, registry=registry) as port:
        for _ in range(3):
            assert (await get(port, "/metrics", bearing("reader-token")))[0] == 200
        assert len(cluster.calls) == 2
        await clock.advance(REMEMBERED_SECONDS)
        assert (await get(port, "/metrics", bearing("reader-token")))[0] == 200
        assert len(cluster.calls) == 4


async def test_an_api_server_that_is_away_lets_nobody_in_and_is_asked_again(registry):
    cluster = Reviews()
    cluster.down = True
    async with metrics_served("127.0.0.1:0", cluster, FakeClock(), registry=registry) as port:
        assert (await get(port, "/metrics", bearing("reader-token")))[0] == 503
        cluster.down = False
        assert (await get(port, "/metrics", bearing("reader-token")))[0] == 200


async def test_made_up_tokens_fill_no_memory(registry):
    cluster = Reviews()
    async with metrics_served("127.0.0.1:0", cluster, FakeClock(), registry=registry) as port:
        assert (await get(port, "/metrics", bearing("made-up-0")))[0] == 401
        for number in range(100):
            await get(port, "/metrics", bearing(f"made-up-{number}"))
        asked = len(cluster.calls)
        await get(port, "/metrics", bearing("made-up-0"))
        assert len(cluster.calls) == asked  # within the hundred that are remembered
        await get(port, "/metrics", bearing("one-more"))
        await get(port, "/metrics", bearing("made-up-0"))
        assert len(cluster.calls) == asked + 2


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("POST", "/metrics", 405)]
)
async def test_nothing_else_is_answered(registry, method, path, status):
    async with metrics_served("127.0.0.1:0", Reviews(), FakeClock(), registry=registry) as port:
        assert (await get(port, path, bearing("reader-token"), method=method))[0] == status


@pytest.mark.parametrize(
    "octets", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"b" * 99999]
)
async def test_nonsense_ends_the_connection_and_nothing_more(registry, octets):
    async with metrics_served("127.0.0.1:0", Reviews(), FakeClock(), registry=registry) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(octets)
        with suppress(ConnectionResetError):
            assert (await reader.read())[9:12] in {b"", b"400", b"413"}
        writer.close()
        assert (await get(port, "/metrics", bearing("reader-token")))[0] == 200


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:9443", ("0.0.0.0", 9443)),  # noqa: S104  (only read)
        (":9443", ("", 9443)),
        ("[::1]:0", ("::1", 0)),
    ],
)
def test_addresses(text, address):
    assert address_of(text) == address


@pytest.mark.parametrize("text", ["9443", "host:", "host:port", ""])
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="ADDRESS:PORT"):
        address_of(text)
