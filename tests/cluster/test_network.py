"""NetworkChaos between pods on different nodes: felt there, proven, and gone without a trace."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.cluster.installed import Installed, pod, selector
from tests.cluster.paths import Path, serves

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SERVER = ("sh", "-c", "iperf3 --server --daemon; exec python3 -m http.server --bind :: 80")


class Ends(NamedTuple):
    """A client on node1, a server on node2, and another server that nobody means."""

    installed: Installed
    namespace: str
    there: Path
    elsewhere: Path
    back: Path
    """From the server to the client."""

    def cut(self, **spec: Any) -> dict[str, Any]:
        """Describe what happens between client and server."""
        return {
            "target": {"mode": "all", "selector": selector(self.namespace, app="server")}
        } | spec


@pytest.fixture(scope="module")
def ends(installed: Installed) -> Iterator[Ends]:
    namespace = f"network-{secrets.token_hex(3)}"
    installed.cluster.make_namespace(namespace)
    installed.pods(
        namespace,
        pod(namespace, "client", "node1"),
        pod(namespace, "server", "node2", *SERVER),
        pod(namespace, "other", "node2", *SERVER),
    )
    there, elsewhere, back = (
        Path(installed, namespace, source, installed.address(namespace, far))
        for source, far in (("client", "server"), ("client", "other"), ("server", "client"))
    )
    serves(there)
    serves(elsewhere)
    yield Ends(installed, namespace, there, elsewhere, back)
    installed.kubectl("delete", "namespace", namespace, "--wait=false")


def slow(path: Path) -> None:
    assert 95 < path.ping().middle_ms < 150
    took = path.fetch(5.0)
    assert took is not None
    assert took > 0.19  # two packets of the client's are waited for: SYN and request


def lossy(path: Path) -> None:
    assert 0.25 < path.ping(100).lost < 0.75


def repeated(path: Path) -> None:
    pings = path.ping(100)
    assert pings.lost == 0
    assert 25 < pings.duplicates < 75


def overtaken(path: Path) -> None:
    times = path.ping(100).times_ms
    assert sum(time < 40 for time in times) > 20
    assert sum(time > 45 for time in times) > 20


def narrow(path: Path) -> None:
    assert 4 < path.megabits() < 10


def all_of_it(path: Path) -> None:
    pings = path.ping(100)
    assert pings.middle_ms > 45
    assert 0.05 < pings.lost < 0.6
    assert pings.duplicates > 5


SHAPES: dict[str, tuple[dict[str, Any], Callable[[Path], None]]] = {
    "delay": ({"action": "delay", "delay": {"latency": "100ms"}}, slow),
    "loss": ({"action": "loss", "loss": {"loss": "50"}}, lossy),
    "duplicate": ({"action": "duplicate", "duplicate": {"duplicate": "50"}}, repeated),
    # A damaged ping has a wrong checksum: the server does not answer it.
    "corrupt": ({"action": "corrupt", "corrupt": {"corrupt": "50"}}, lossy),
    "reorder": (
        {"action": "delay", "delay": {"latency": "50ms", "reorder": {"reorder": "50", "gap": 1}}},
        overtaken,
    ),
    "bandwidth": (
        {"action": "bandwidth", "bandwidth": {"rate": "8mbit", "limit": 200000, "buffer": 20000}},
        narrow,
    ),
    "rate": ({"action": "netem", "rate": {"rate": "8mbit"}}, narrow),
    "netem": (
        {
            "action": "netem",
            "delay": {"latency": "50ms"},
            "loss": {"loss": "20"},
            "duplicate": {"duplicate": "30"},
        },
        all_of_it,
    ),
}


def is_well(path: Path) -> None:
    pings = path.ping(20)
    assert (pings.lost, pings.duplicates) == (0, 0)
    assert pings.middle_ms < 40
    assert path.megabits(1) > 50


@pytest.mark.parametrize("shape", SHAPES)
def test_packets_suffer_as_asked_and_no_others(ends: Ends, shape: str) -> None:
    spec, felt = SHAPES[shape]
    with ends.installed.leaves_nothing(ends.namespace):
        is_well(ends.there)
        experiment = ends.installed.experiment("NetworkChaos", ends.namespace, ends.cut(**spec))
        experiment.confirmed()
        felt(ends.there)
        is_well(ends.elsewhere)
        experiment.delete()
        is_well(ends.there)


# What arrives while the client is cut off, seen from it.
@pytest.mark.parametrize(
    ("direction", "from_client", "from_server"),
    [("to", False, True), ("from", True, False), ("both", False, False)],
)
def test_a_partition_cuts_the_direction_that_was_asked_for(
    ends: Ends, direction: str, from_client: bool, from_server: bool
) -> None:
    spec = ends.cut(action="partition", direction=direction)
    with ends.installed.leaves_nothing(ends.namespace):
        experiment = ends.installed.experiment("NetworkChaos", ends.namespace, spec)
        experiment.confirmed(".", ".Target")
        assert ends.there.datagram_arrives("server") == from_client
        assert ends.back.datagram_arrives("client") == from_server
        assert ends.there.fetch() is None
        is_well(ends.elsewhere)
        experiment.delete()
        is_well(ends.there)


def test_a_delay_in_both_directions_is_felt_twice(ends: Ends) -> None:
    spec = ends.cut(action="delay", delay={"latency": "50ms"}, direction="both")
    with ends.installed.leaves_nothing(ends.namespace):
        experiment = ends.installed.experiment("NetworkChaos", ends.namespace, spec)
        experiment.confirmed()
        assert 95 < ends.there.ping().middle_ms < 150
        assert 95 < ends.back.ping().middle_ms < 150
        experiment.delete()


@pytest.mark.parametrize("entry", ["{address}", "{address}:80", "{address}/32"])
def test_an_address_outside_can_be_cut_off(ends: Ends, entry: str) -> None:
    far = entry.format(address=ends.there.address)
    spec = {"action": "partition", "externalTargets": [far]}
    with ends.installed.leaves_nothing(ends.namespace):
        experiment = ends.installed.experiment("NetworkChaos", ends.namespace, spec)
        experiment.wait("AllInjected")
        assert ends.there.fetch() is None
        assert ends.elsewhere.fetch() is not None
        assert (ends.there.ping().lost == 0) == (":80" in entry)
        experiment.delete()
        assert ends.there.fetch() is not None
