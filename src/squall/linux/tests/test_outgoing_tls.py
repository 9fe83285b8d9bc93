"""TLS that a target speaks with others, opened by an authority of one experiment."""

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import time
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta

import pytest

from squall.certificates import make_authority, make_server
from squall.faults import kinds
from squall.injection.contract import Live
from squall.injection.kind import load
from squall.injection.laws import Notes
from squall.injection.world import World
from squall.injection.world.target import Target
from squall.linux import namespaces
from squall.linux.clock import SystemClock
from squall.linux.exchanges import LinuxHttp
from squall.linux.tests.conftest import FAR, LEASE_SECONDS
from squall.linux.tests.echoing import Connection, serving
from squall.linux.tests.test_trust import SLEEPER
from squall.linux.trust import LISTS, LinuxTrust

pytestmark = pytest.mark.host

KIND = kinds()["HTTPChaos"]
PORT = 8443
NAME = "db.example"
ASKED = {"target": "Response", "outgoing": True, "port": PORT, "replace": {"code": 503}}
LIVE = Live("a/.", KIND.fault.model_validate(ASKED))


class Outgoing:
    """A target with a root of its own, and a server elsewhere whose authority it trusts."""

    def __init__(self, cables, folder):
        self.cables, now = cables, datetime.now(UTC)
        authority = make_authority("theirs", now, timedelta(days=1))
        issued = make_server(authority, NAME, [NAME], now, timedelta(days=1))
        self.root = folder / "root"
        self.list = self.root / LISTS[0].lstrip("/")
        self.list.parent.mkdir(parents=True)
        self.list.write_bytes(authority.certificate)
        self.original = authority.certificate
        self.files = [folder / "server.pem", folder / "server.key"]
        self.files[0].write_bytes(issued.certificate)
        self.files[1].write_bytes(issued.key)
        enter = ("nsenter", f"--net=/proc/{cables.target.pid}/ns/net", "--")
        command = (*enter, sys.executable, "-c", SLEEPER, str(self.root))
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.process.stdout.readline()
        pid = self.process.pid
        self.target = Target("default/web", "", "", pid, namespaces.started(pid))

    async def ask(self, trusted=None):
        """Call the server as a program that reads the list now, or has read it before."""
        context = ssl.create_default_context(cadata=(trusted or self.list.read_bytes()).decode())
        sock = await self.cables.open(self.cables.target, socket.SOCK_STREAM, 4)

        def call():
            sock.settimeout(5)
            sock.connect((FAR[4], PORT))
            with closing(Connection.over(context.wrap_socket(sock, server_hostname=NAME))) as http:
                return http.ask("GET", "/")[0]

        return await asyncio.to_thread(call)


@pytest.fixture
def outgoing(cables, tmp_path):
    if os.geteuid():
        pytest.skip("needs root")
    outgoing = Outgoing(cables, tmp_path)
    with serving(cables.peer, PORT, *map(str, outgoing.files)):
        yield outgoing
    with outgoing.process as process:
        process.kill()


@pytest.fixture
async def world(tmp_path):
    http = LinuxHttp(tmp_path / "http", lease_seconds=LEASE_SECONDS)
    yield World(SystemClock(), None, None, None, None, http=http, trust=LinuxTrust())
    await http.end_all()


async def test_a_program_that_reads_whom_to_trust_feels_it_and_afterwards_nothing_is_left(
    outgoing, world
):
    injector, notes = load(KIND.injector)(world), Notes()
    assert await outgoing.ask() == 200
    await injector.converge(outgoing.target, [LIVE], notes)
    assert await outgoing.ask() == 503
    assert (await world.http.counters(outgoing.target))["a/."].replaced == 1
    # A fresh agent finds it as it is, and takes it back.
    fresh = load(KIND.injector)(world)
    before = outgoing.list.read_bytes()
    await fresh.converge(outgoing.target, [LIVE], notes)
    assert outgoing.list.read_bytes() == before
    assert await outgoing.ask() == 503
    await fresh.converge(outgoing.target, [], notes)
    assert outgoing.list.read_bytes() == outgoing.original
    assert await outgoing.ask() == 200


async def test_a_program_that_pins_whom_it_trusts_goes_on_and_is_counted(outgoing, world):
    injector, notes = load(KIND.injector)(world), Notes()
    await injector.converge(outgoing.target, [LIVE], notes)
    codes = []
    for _ in range(3):
        try:
            codes.append(await outgoing.ask(outgoing.original))
        except ssl.SSLError:
            codes.append(0)  # it has turned us away
    assert codes[-1] == 200
    assert (await world.http.counters(outgoing.target))["a/."].sealed >= 1
    await injector.converge(outgoing.target, [], notes)


async def settled(outgoing):
    """Call as a program that pins, until the proxy has learned that it does."""
    with suppress(ssl.SSLError):
        await outgoing.ask(outgoing.original)


async def test_what_cannot_be_opened_is_held_and_reset_as_a_whole(outgoing, world):
    injector, notes = load(KIND.injector)(world), Notes()
    slow = {"target": "Request", "outgoing": True, "port": PORT, "delay": "80ms"}
    await injector.converge(outgoing.target, [Live("a/.", KIND.fault.model_validate(slow))], notes)
    await settled(outgoing)
    began = time.perf_counter()
    assert await outgoing.ask(outgoing.original) == 200
    assert time.perf_counter() - began >= 0.08
    counted = (await world.http.counters(outgoing.target))["a/."]
    assert (counted.delayed >= 1, counted.sealed >= 1) == (True, True)
    broken = slow | {"delay": "", "abort": True}
    live = [Live("b/.", KIND.fault.model_validate(broken))]
    await injector.converge(outgoing.target, live, notes)
    await settled(outgoing)
    with pytest.raises(ConnectionResetError):
        await outgoing.ask(outgoing.original)
    some = broken | {"path": "/other"}  # whether that is meant, nobody can see
    await injector.converge(outgoing.target, [Live("c/.", KIND.fault.model_validate(some))], notes)
    await settled(outgoing)
    assert await outgoing.ask(outgoing.original) == 200
    await injector.converge(outgoing.target, [], notes)


async def test_a_server_whose_key_we_do_not_have_is_held_as_a_whole(outgoing, world):
    slow = {"target": "Request", "port": PORT, "delay": "80ms"}
    peer, injector, notes = outgoing.cables.peer, load(KIND.injector)(world), Notes()
    await injector.converge(peer, [Live("a/.", KIND.fault.model_validate(slow))], notes)
    began = time.perf_counter()
    assert await outgoing.ask() == 200
    assert time.perf_counter() - began >= 0.08
    counted = (await world.http.counters(peer))["a/."]
    assert (counted.sealed, counted.delayed) == (1, 1)
    await injector.converge(peer, [], notes)
