"""A target and its peer: two network namespaces joined by two cables, gone with their processes."""

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from squall.injection.world.target import Target
from squall.linux import namespaces
from squall.linux.lanes import Lanes
from squall.linux.network import LinuxNetwork
from squall.linux.packets import PacketsProcess
from squall.linux.tests.packet_faults import end
from squall.linux.tests.two_namespaces import TwoNamespaces
from testbed.containers import places, sandboxes  # noqa: F401  (fixtures)

FAR = {4: "10.77.0.2", 6: "fd77::2"}
"""Addresses of the peer on the first cable, by protocol; the target has .1 and ::1."""
SPARE = {4: "10.77.0.3", 6: "fd77::3"}
"""More of them, for what must be spared."""
SECOND = {4: "10.78.0.2", 6: "fd78::2"}
"""Addresses of the peer on the second cable, the target's device eth1."""
PORT = 7007

LEASE_SECONDS = 2.0


@dataclass
class Cables:
    """Both ends; every command runs inside one of them."""

    target: Target
    peer: Target

    def run(self, where: Target, *command: str) -> str:
        """Run a command in one of the namespaces and return what it says."""
        enter = ("nsenter", f"--net=/proc/{where.pid}/ns/net", "--")
        done = subprocess.run((*enter, *command), capture_output=True, text=True, check=False)
        assert not done.returncode, f"{command}: {done.stderr}"
        return done.stdout

    def snapshot(self) -> str:
        """Describe rules, qdiscs and devices of the target, counters left out."""
        rules = self.run(self.target, "nft", "--stateless", "list", "ruleset")
        qdiscs = self.run(self.target, "tc", "-j", "qdisc", "show")
        filters = self.run(self.target, "tc", "filter", "show", "dev", "eth0", "egress")
        return rules + qdiscs + filters + self.run(self.target, "ip", "-br", "address")

    async def open(self, where: Target, kind: int, version: int) -> socket.socket:
        """Open a socket in one of the namespaces."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        opened = await namespaces.inside(
            namespaces.of(where), lambda: socket.socket(family, kind, 0)
        )
        opened.setblocking(False)
        return opened


@pytest.fixture
def cables() -> Iterator[Cables]:
    if os.geteuid():
        pytest.skip("needs root")
    with contextlib.ExitStack() as stack:
        target, peer = (stack.enter_context(_namespace(name)) for name in ("web", "db"))
        both = Cables(target, peer)
        suffix = secrets.token_hex(3)
        for number, subnet in enumerate(("77", "78")):
            near, far = f"sqn{suffix}{number}", f"sqf{suffix}{number}"
            _ip("link", "add", near, "type", "veth", "peer", "name", far)
            for where, device, host in ((target, near, "1"), (peer, far, "2")):
                _ip("link", "set", device, "netns", str(where.pid))
                both.run(where, "ip", "link", "set", device, "name", f"eth{number}", "up")
                for address in (f"10.{subnet}.0.{host}/24", f"fd{subnet}::{host}/64"):
                    both.run(where, *_address(address, f"eth{number}"))
        for address in (f"{SPARE[4]}/24", f"{SPARE[6]}/64"):
            both.run(peer, *_address(address, "eth0"))
        for where in (target, peer):
            both.run(where, "ip", "link", "set", "lo", "up")
        both.run(target, "ip", "route", "add", "default", "via", FAR[4])
        yield both


@pytest.fixture
async def network(tmp_path):
    adapter = LinuxNetwork(tmp_path / "packets", lease_seconds=LEASE_SECONDS, shaping=Lanes())
    yield adapter
    await adapter.end_all()


@pytest.fixture
def pair() -> Iterator[TwoNamespaces]:
    made = TwoNamespaces()
    yield made
    made.close()


@pytest.fixture
async def packets(pair, tmp_path):
    """A process inside the near one of a pair, without the adapter around it."""
    started = await PacketsProcess.start(pair.near, tmp_path / "packets", lease_seconds=5)
    yield started
    if not started.gone.is_set():
        started.close()
    end(started)


@contextlib.contextmanager
def _namespace(name: str) -> Iterator[Target]:
    """A process that sleeps in a network namespace of its own."""
    command = ("unshare", "--net", "--", "sleep", "600")
    with subprocess.Popen(command) as process:
        try:
            ours = Path("/proc/self/ns/net").stat().st_ino
            entered = Path(f"/proc/{process.pid}/ns/net")
            for _ in range(500):
                if entered.stat().st_ino != ours and _command(process.pid) == "sleep":
                    break
                asyncio.run(asyncio.sleep(0.01))
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            yield Target(f"default/{name}", name, "", process.pid, int(fields[19]))
        finally:
            process.kill()


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True)


def _address(address: str, device: str) -> tuple[str, ...]:
    # nodad: IPv6 addresses are of use at once.
    tail = ("nodad",) if ":" in address else ()
    return ("ip", "address", "add", address, "dev", device, *tail)
