"""DNSChaos on a cluster: names fail for the pods that were meant, and for nobody else."""

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from testbed.cluster.layout import DNS
from testbed.cluster.waiting import until
from testbed.images.build import TOOLS
from tests.cluster.installed import Installed, pod, selector

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

HIT, SPARED = "kubernetes.default.svc.cluster.local", "kube-dns.kube-system.svc.cluster.local"
ADDRESS = "10.96.0.1"
LOOK_UP = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
OVER_TCP = """
import socket, sys
name = b"".join(bytes([len(l)]) + l.encode() for l in sys.argv[1].split(".")) + b"\\0"
for sort in map(int, sys.argv[3:]):
    query = b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + name + sort.to_bytes(2) + b"\\0\\1"
    with socket.create_connection((sys.argv[2], 53), timeout=5) as over:
        over.sendall(len(query).to_bytes(2) + query)
        print(over.recv(4096)[5] & 15)
"""
SORTS = {"A": 1, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33}
CACHE = "169.254.20.10"
"""Where node-local caches listen."""
RELAY = f"""
import socket, subprocess
subprocess.run(["ip", "address", "replace", "{CACHE}/32", "dev", "lo"], check=True)
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("{CACHE}", 53))
while True:
    query, client = here.recvfrom(4096)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.settimeout(5)
        there.connect(("{DNS}", 53))
        there.send(query)
        try:
            here.sendto(there.recv(4096), client)
        except OSError:
            pass
"""


class Pods(NamedTuple):
    """A client of two containers, and another pod beside it on its node."""

    installed: Installed
    namespace: str

    def look_up(self, name: str, *where: str) -> str:
        """Ask as any program does; the reason where that fails."""
        pod, *container = where or ("client", "-c=main")
        command = ("exec", f"-n={self.namespace}", pod, *container, "--")
        try:
            said = self.installed.kubectl(*command, "python3", "-c", LOOK_UP, f"{name}.")
        except RuntimeError as failed:
            return str(failed).partition("gaierror: ")[2].splitlines()[0]
        return said.strip()

    def over_tcp(self, name: str) -> set[str]:
        """Response codes of the name server, whatever sort of record it is asked for."""
        server = self.resolv_conf().partition("nameserver ")[2].split()[0]
        command = ("exec", f"-n={self.namespace}", "client", "-c=main", "--")
        asked = (name, server, *map(str, SORTS.values()))
        return set(self.installed.kubectl(*command, "python3", "-c", OVER_TCP, *asked).split())

    def resolv_conf(self) -> str:
        return self.installed.run(self.namespace, "client", "cat", "/etc/resolv.conf")


@pytest.fixture(scope="module")
def pods(installed: Installed) -> Iterator[Pods]:
    namespace = f"dns-{secrets.token_hex(3)}"
    installed.cluster.make_namespace(namespace)
    sleep = {"image": TOOLS, "command": ["sleep", "9999"]}
    both = [{"name": "main", **sleep}, {"name": "side", **sleep}]
    installed.pods(
        namespace,
        pod(namespace, "client", "node1", containers=both),
        pod(namespace, "other", "node1", "sleep", "9999"),
    )
    found = Pods(installed, namespace)
    until("a name", lambda: found.look_up(HIT) == ADDRESS)
    yield found
    installed.kubectl("delete", "namespace", namespace, "--wait=false")


def test_a_name_fails_for_one_pod_and_resolves_again(pods: Pods) -> None:
    before, spared = pods.resolv_conf(), pods.look_up(SPARED)
    assert spared.startswith("10.96.")
    spec = {"action": "error", "patterns": ["kubernetes.*"], "error": "NXDOMAIN"}
    with pods.installed.leaves_nothing(pods.namespace):
        with pods.installed.experiment("DNSChaos", pods.namespace, spec) as experiment:
            experiment.confirmed()
            ids = [record["id"] for record in experiment.records()]
            assert ids == [f"{pods.namespace}/client/main"]
            assert "not known" in pods.look_up(HIT)
            assert pods.over_tcp(HIT) == {"3"}
            assert pods.look_up(SPARED) == spared
            assert pods.look_up(HIT, "other") == ADDRESS
            assert pods.resolv_conf() == before
        assert pods.look_up(HIT) == ADDRESS
        assert pods.over_tcp(HIT) == {"0"}
    assert pods.resolv_conf() == before


def test_both_containers_of_a_pod_may_be_named_and_each_is_proven(pods: Pods) -> None:
    spec = {"action": "random", "containerNames": ["main", "side"], "addresses": ["203.0.113.9"]}
    with (
        pods.installed.leaves_nothing(pods.namespace),
        pods.installed.experiment("DNSChaos", pods.namespace, spec) as experiment,
    ):
        experiment.confirmed()
        assert len(experiment.records()) == 2
        for container in ("main", "side"):
            assert pods.look_up(HIT, "client", f"-c={container}") == "203.0.113.9"


def test_a_holder_that_dies_lets_names_resolve_and_is_started_again(pods: Pods) -> None:
    spec = {"action": "error"}
    with (
        pods.installed.leaves_nothing(pods.namespace),
        pods.installed.experiment("DNSChaos", pods.namespace, spec) as experiment,
    ):
        experiment.confirmed()
        assert pods.look_up(HIT) != ADDRESS
        os.kill(holder(pods), signal.SIGKILL)
        # The agent may be quicker than a look-up of ours; what counts is that it is back.
        until("the fault again", lambda: pods.look_up(HIT) != ADDRESS, 60)
        assert holder(pods)
    assert pods.look_up(HIT) == ADDRESS


@pytest.fixture
def cached(pods: Pods) -> Iterator[str]:
    """A pod that asks a cache on its node, as node-local caches are set up."""
    rights = {"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}
    relay = {"name": "main", "image": TOOLS, "command": ["python3", "-c", RELAY], **rights}
    server = {"dnsPolicy": "None", "dnsConfig": {"nameservers": [CACHE]}}
    pods.installed.pods(
        pods.namespace,
        pod(pods.namespace, "cache", "node1", hostNetwork=True, containers=[relay]),
        pod(pods.namespace, "cached", "node1", "sleep", "9999", **server),
    )
    until("a name", lambda: pods.look_up(HIT, "cached") == ADDRESS)
    yield "cached"
    pods.installed.run(pods.namespace, "cache", "ip", "address", "del", f"{CACHE}/32", "dev", "lo")
    pods.installed.kubectl("delete", "pod", "cache", "cached", f"-n={pods.namespace}")


def test_a_cache_on_the_node_is_no_way_around(pods: Pods, cached: str) -> None:
    spec = {
        "action": "error",
        "patterns": ["kubernetes.*"],
        "selector": selector(pods.namespace, app=cached),
    }
    with (
        pods.installed.leaves_nothing(pods.namespace),
        pods.installed.experiment("DNSChaos", pods.namespace, spec) as experiment,
    ):
        experiment.confirmed()
        assert pods.look_up(HIT, cached) != ADDRESS
        assert pods.look_up(SPARED, cached).startswith("10.96.")
        assert pods.look_up(HIT) == ADDRESS
    assert pods.look_up(HIT, cached) == ADDRESS


def holder(pods: Pods) -> int:
    """Find the process in the client's network namespace."""
    path = "jsonpath={.status.containerStatuses[0].containerID}"
    where = ("pod", "client", f"-n={pods.namespace}", "-o", path)
    ident = pods.installed.kubectl("get", *where).rpartition("/")[2]
    everyone = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    client = next(one for one in everyone if ident in _read(one / "cgroup"))
    network = (client / "ns/net").readlink()
    holders = (one for one in everyone if "squall-node\0dns" in _read(one / "cmdline"))
    return next(int(one.name) for one in holders if (one / "ns/net").readlink() == network)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
