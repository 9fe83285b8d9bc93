"""A target and its peer: two network namespaces joined by two cables, gone with their processes."""

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from squall.injection.world.target import Target
from squall.linux import capabilities, namespaces
from squall.linux.holder import Holder
from squall.linux.name_faults import LinuxNames
from squall.linux.network import LinuxNetwork
from squall.linux.packets import PacketsProcess
from squall.linux.shaping import Shaping
from squall.linux.tests import name_server
from squall.linux.tests.http_servers import Server, dialled, listening
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
        _ip(*(_cable(number, target, peer) for number in (0, 1)))
        # All lines for one end at once: on a slow machine each program takes a tenth of a second.
        _ip(*_addressed("1"), f"route add default via {FAR[4]}", inside=target)
        spare = [f"address add {SPARE[4]}/24 dev eth0", f"address add {SPARE[6]}/64 dev eth0 nodad"]
        _ip(*_addressed("2"), *spare, inside=peer)
        yield both


@pytest.fixture(scope="session")
def shaping() -> Shaping:
    """Choose as the agent does; what a kernel can does not change."""
    return asyncio.run(capabilities.shaping())


@pytest.fixture
async def network(tmp_path, shaping):
    adapter = LinuxNetwork(tmp_path / "packets", lease_seconds=LEASE_SECONDS, shaping=shaping)
    yield adapter
    await adapter.end_all()


@pytest.fixture
async def names(tmp_path):
    adapter = LinuxNames(tmp_path / "dns", lease_seconds=LEASE_SECONDS)
    yield adapter
    await adapter.end_all()


@pytest.fixture
def server(cables):
    """A name server at the peer's first address."""
    with name_server.serving(cables.peer, FAR[4]) as found:
        yield found[FAR[4]]


@pytest.fixture
def net() -> Iterator[TwoNamespaces]:
    with contextlib.closing(TwoNamespaces()) as made:
        yield made


@pytest.fixture
def serving(net: TwoNamespaces) -> Iterator[Callable[..., None]]:
    """Serve connections in one end of `net`, the near one unless told; until the test ends."""
    with contextlib.ExitStack() as stack:

        def serve(how: Callable[[socket.socket], None], port: int = 80, where: str = "") -> None:
            started = Server(listening(where or net.near, "::", port), how)
            stack.callback(started.close)

        yield serve


@pytest.fixture
def dial() -> Iterator[Callable[..., socket.socket]]:
    """Connect from inside a namespace; closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda netns, address=TwoNamespaces.NEAR, port=80: stack.enter_context(
            dialled(netns, address, port)
        )


@pytest.fixture
async def proxy(net: TwoNamespaces, tmp_path: Path) -> AsyncIterator[Holder]:
    """A process inside the near end of `net`."""
    begun = await Holder.begin("http", {"netns": net.near}, tmp_path / "http", lease_seconds=5)
    yield begun
    await begun.quit()


@pytest.fixture
async def packets(net, tmp_path):
    """A process inside the near end of `net`, without the adapter around it."""
    started = await PacketsProcess.start(net.near, tmp_path / "packets", lease_seconds=5)
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
            yield Target(f"default/{name}", name, "", process.pid, namespaces.started(process.pid))
        finally:
            process.kill()


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _cable(number: int, near: Target, far: Target) -> str:
    ends = (f"eth{number} netns {near.pid}", f"eth{number} netns {far.pid}")
    return f"link add {ends[0]} type veth peer name {ends[1]}"


def _addressed(host: str) -> Iterator[str]:
    yield "link set lo up"
    for number, subnet in enumerate(("77", "78")):
        yield f"link set eth{number} up"
        yield f"address add 10.{subnet}.0.{host}/24 dev eth{number}"
        # nodad: IPv6 addresses are of use at once.
        yield f"address add fd{subnet}::{host}/64 dev eth{number} nodad"


def _ip(*lines: str, inside: Target | None = None) -> None:
    enter = ("nsenter", f"--net=/proc/{inside.pid}/ns/net", "--") if inside else ()
    batch = "\n".join(lines).encode()
    subprocess.run((*enter, "ip", "-batch", "-"), input=batch, check=True)
