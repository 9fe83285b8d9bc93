"""HTTP exchanges of a real server in a namespace of its own, through the proxy."""

import asyncio
import base64
import json
import os
import signal
import socket
import time
from contextlib import closing, suppress

import pytest

from squall.errors import InvalidFault, TargetGone, TryAgain
from squall.injection.world.http import HttpState, Patch, Replace, Rule
from squall.linux import namespaces
from squall.linux.exchanges import LinuxHttp
from squall.linux.tests.conftest import LEASE_SECONDS, PORT
from squall.linux.tests.echoing import Connection, serving

pytestmark = pytest.mark.host

NOTHING = HttpState()
PATIENCE_SECONDS = 20.0
SERVER = {4: "10.77.0.1", 6: "fd77::1"}
"""The target's own addresses."""
CLIENT = {4: "10.77.0.2", 6: "fd77::2"}
versions = pytest.mark.parametrize("version", [4, 6])


def response(source="a/.", **what):
    return Rule(source, "Response", PORT, **what)


def request(source="a/.", **what):
    return Rule(source, "Request", PORT, **what)


def state(*rules):
    return HttpState(rules)


CODE = response(replace=Replace(code=503))
SLOW = request("b/.", delay_us=50_000)


@pytest.fixture
async def http(tmp_path):
    adapter = LinuxHttp(tmp_path / "http", lease_seconds=LEASE_SECONDS)
    yield adapter
    await adapter.end_all()


@pytest.fixture
def served(cables):
    with serving(cables.target, PORT):
        yield cables


async def client(cables, version=4, *, own=False):
    """Connect to the target's server, from its peer or from inside."""
    where = cables.target if own else cables.peer
    sock = await cables.open(where, socket.SOCK_STREAM, version)
    return await asyncio.to_thread(Connection, sock, SERVER[version], PORT)


async def ask(cables, method="GET", path="/", body=None, *, version=4, own=False, **headers):
    with closing(await client(cables, version, own=own)) as connection:
        return await asyncio.to_thread(connection.ask, method, path, body, **headers)


def rules(cables):
    return cables.run(cables.target, "nft", "--stateless", "list", "ruleset")


async def took_ms(cables, path="/"):
    with closing(await client(cables)) as connection:
        began = time.perf_counter()
        await asyncio.to_thread(connection.ask, "GET", path)
        return (time.perf_counter() - began) * 1000


@versions
async def test_a_code_is_replaced_for_what_is_meant_and_the_server_sees_its_client(
    served, http, version
):
    before = rules(served)
    plain = await ask(served, path="/b", version=version)
    await http.apply(served.target, state(response(path="/a*", replace=Replace(code=503))))
    code, told = await ask(served, path="/ab?c=d", version=version)
    assert (code, told["path"], told["client"]) == (503, "/ab?c=d", plain[1]["client"])
    assert await ask(served, path="/b", version=version) == plain
    assert plain[1]["client"].startswith(CLIENT[version][:-1])
    await http.apply(served.target, NOTHING)
    assert (await ask(served, path="/a", version=version))[0] == 200
    assert rules(served) == before


async def test_clients_inside_the_target_feel_it_too(served, http):
    await http.apply(served.target, state(CODE))
    assert (await ask(served, own=True))[0] == 503


async def test_every_part_of_a_request_may_be_changed(served, http):
    changed = request(
        replace=Replace(
            path="/new",
            method="PUT",
            headers={"X-One": "1"},
            queries={"a": "2"},
            body=base64.b64encode(b'{"keep": 1, "drop": 2}').decode(),
        ),
        patch=Patch(
            headers=(("X-Two", "2"),),
            queries=(("b", "3"),),
            body={"drop": None, "add": 3},
        ),
    )
    await http.apply(served.target, state(changed))
    _, told = await ask(served, "POST", "/old?a=1&c=4", "{}")
    assert (told["method"], told["path"]) == ("PUT", "/new?a=2&c=4&b=3")
    assert (told["headers"]["X-One"], told["headers"]["X-Two"]) == ("1", "2")
    assert json.loads(told["body"]) == {"keep": 1, "add": 3}


async def test_a_body_of_a_response_may_be_changed(served, http):
    changed = response(patch=Patch(body={"client": "nobody", "headers": None}))
    await http.apply(served.target, state(changed))
    _, told = await ask(served, path="/x")
    assert told == {"client": "nobody", "method": "GET", "path": "/x", "body": ""}
    assert (await http.counters(served.target))["a/."].patched == 1


async def test_a_delay_is_felt_and_counted(served, http):
    await http.apply(served.target, state(SLOW))
    took = sorted([await took_ms(served) for _ in range(5)])
    assert 50 <= took[0] < took[2] < 75
    counted = (await http.counters(served.target))["b/."]
    assert (counted.exchanges, counted.matched, counted.delayed) == (5, 5, 5)
    assert 50_000 <= counted.delay_us_sum / 5 < 55_000


async def test_an_exchange_that_is_broken_off_gets_no_answer(served, http):
    await http.apply(served.target, state(request(path="/x", abort=True)))
    with pytest.raises(ConnectionResetError):
        await ask(served, path="/x")
    assert (await ask(served, path="/y"))[0] == 200
    assert (await http.counters(served.target))["a/."].aborted == 1


async def test_connections_that_are_open_already_feel_it_within_a_second(served, http):
    loop = asyncio.get_running_loop()
    with closing(await client(served)) as connection:
        assert (await asyncio.to_thread(connection.ask, "GET", "/"))[0] == 200
        await http.apply(served.target, state(CODE))
        applied = loop.time()
        while True:
            try:
                code, _ = await asyncio.to_thread(connection.ask, "GET", "/")
            except OSError:
                break  # reset, so that its client comes again, and then feels it
            if code == 503:
                break
            assert loop.time() < applied + 1
    assert (await ask(served))[0] == 503


async def test_two_experiments_stack_and_each_goes_by_itself(served, http):
    for left in (CODE, SLOW):
        await http.apply(served.target, state(CODE, SLOW))
        assert (await ask(served))[0] == 503
        assert await took_ms(served) >= 50
        await http.apply(served.target, state(left))
        assert (await ask(served))[0] == (503 if left is CODE else 200)
        assert (await took_ms(served) >= 50) == (left is SLOW)


async def test_a_share_is_drawn_from_the_seed(served, http):
    async def codes():
        await http.apply(served.target, NOTHING)
        drawn = response(percent=50, seed=7, replace=Replace(code=503))
        await http.apply(served.target, state(drawn))
        with closing(await client(served)) as connection:
            return [(await asyncio.to_thread(connection.ask, "GET", "/"))[0] for _ in range(60)]

    first = await codes()
    assert 15 <= first.count(503) <= 45
    assert await codes() == first


async def test_what_is_in_force_is_read_back_by_another_agent(served, http, tmp_path):
    wanted = state(CODE, SLOW)
    await http.apply(served.target, wanted)
    assert await http.state(served.target) == wanted
    await http.close()
    other = LinuxHttp(tmp_path / "http", lease_seconds=LEASE_SECONDS)
    assert await other.state(served.target) == wanted
    await other.apply(served.target, NOTHING)
    assert not (tmp_path / "http").exists()
    assert await other.counters(served.target) == {}


async def test_a_proxy_that_is_killed_leaves_the_way_free_and_is_replaced(served, http):
    await http.apply(served.target, state(CODE))
    [hold] = http._holders._holds.values()
    os.kill(hold.process.pid, signal.SIGKILL)
    await hold.process.gone.wait()
    while True:  # the kernel takes its hooks back one after the other
        with suppress(ConnectionError):
            assert (await ask(served))[0] == 200
            break
    assert await http.state(served.target) == NOTHING
    await http.apply(served.target, state(CODE))
    assert (await ask(served))[0] == 503


async def test_an_agent_that_is_gone_leaves_the_fault_for_one_lease(served, http):
    await http.apply(served.target, state(CODE))
    await http.close()
    assert (await ask(served))[0] == 503
    ends = asyncio.get_running_loop().time() + LEASE_SECONDS + 3
    while (await ask(served))[0] == 503:
        assert asyncio.get_running_loop().time() < ends
        await asyncio.sleep(0.05)


async def test_calls_of_the_target_to_others_are_hit_where_that_is_asked(cables, http):
    with serving(cables.peer, PORT):
        sock = await cables.open(cables.target, socket.SOCK_STREAM, 4)
        outgoing = response(outgoing=True, replace=Replace(code=418))
        before = rules(cables)
        await http.apply(cables.target, state(outgoing))
        with closing(await asyncio.to_thread(Connection, sock, CLIENT[4], PORT)) as connection:
            code, told = await asyncio.to_thread(connection.ask, "GET", "/")
        assert (code, told["client"]) == (418, SERVER[4])
        await http.apply(cables.target, NOTHING)
        assert rules(cables) == before


async def test_a_request_of_our_own_feels_what_others_feel(served, http):
    asked = {"method": "GET", "path": "/", "headers": {"X-Mine": "1"}, "within_seconds": 2.0}
    assert (await http.request(served.target, PORT, **asked)).status == 200
    await http.apply(served.target, state(request(abort=True)))
    answer = await http.request(served.target, PORT, **asked)
    assert (answer.status, answer.failure) == (None, "Connection reset by peer")
    await http.apply(served.target, state(request(delay_us=5_000_000)))
    slow = await http.request(served.target, PORT, **(asked | {"within_seconds": 0.2}))
    assert slow.failure == "no answer within 0.2 s"
    with pytest.raises(TryAgain, match="nobody listens on port 1"):
        await http.request(served.target, 1, **asked)


@pytest.fixture
async def stream(cables, http):
    """Give both ends of an answer without an end, begun under a fault that has ended."""
    listening = await cables.open(cables.target, socket.SOCK_STREAM, 4)
    listening.bind((SERVER[4], PORT))
    listening.listen()
    with closing(listening), closing(await cables.open(cables.peer, socket.SOCK_STREAM, 4)) as own:
        listening.settimeout(PATIENCE_SECONDS)
        own.settimeout(PATIENCE_SECONDS)
        await http.apply(cables.target, state(request(path="/never", abort=True)))
        await asyncio.to_thread(own.connect, (SERVER[4], PORT))
        await asyncio.to_thread(own.sendall, b"GET / HTTP/1.1\r\n\r\n")
        accepted, _ = await asyncio.to_thread(listening.accept)
        with closing(accepted):
            await said(accepted, own, b"HTTP/1.1 200 OK\r\n\r\nfirst")
            await http.apply(cables.target, NOTHING)
            yield accepted, own


async def said(server, client, word):
    await asyncio.to_thread(server.sendall, word)
    got = b""
    while not got.endswith(word):
        got += await asyncio.to_thread(client.recv, 1000)


async def test_a_proxy_stays_for_a_stream_and_is_found_by_whoever_needs_one(
    cables, http, stream, tmp_path
):
    other = LinuxHttp(tmp_path / "http", lease_seconds=LEASE_SECONDS)
    for agent in (http, other):
        assert await agent.state(cables.target) == NOTHING
        assert await agent.counters(cables.target) == {}
        [log] = (tmp_path / "http").glob("*.log")
        made = log.stat().st_ino
        await said(stream[0], stream[1], b"more")
        await agent.apply(cables.target, state(CODE))
        assert await agent.state(cables.target) == state(CODE)
        assert log.stat().st_ino == made  # no other process
        await agent.apply(cables.target, NOTHING)
    await said(stream[0], stream[1], b"last")
    for end in stream:
        end.close()
    ends = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while (tmp_path / "http").exists():
        assert asyncio.get_running_loop().time() < ends
        await asyncio.sleep(0.01)


async def test_who_takes_all_back_ends_a_proxy_that_stays_for_a_stream(stream, tmp_path):
    other = LinuxHttp(tmp_path / "http", lease_seconds=0)
    await other.end_all()
    assert not (tmp_path / "http").exists()
    assert await asyncio.to_thread(stream[1].recv, 1) == b""


async def test_what_makes_no_sense_is_refused_and_changes_nothing(served, http):
    await http.apply(served.target, state(CODE))
    with pytest.raises(InvalidFault, match="no response ends with code 42"):
        await http.apply(served.target, state(response(replace=Replace(code=42))))
    assert await http.state(served.target) == state(CODE)


async def test_a_target_that_has_ended_is_told_and_its_proxy_ends(served, http, tmp_path):
    await http.apply(served.target, state(CODE))
    os.kill(served.target.pid, signal.SIGKILL)
    while namespaces.alive(served.target):
        pass
    with pytest.raises(TargetGone):
        await http.state(served.target)
    assert not (tmp_path / "http").exists()
