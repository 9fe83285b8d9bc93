"""NetworkChaos between pods on different nodes: felt there, proven, and gone without a trace."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from testbed.cluster.waiting import until
from tests.cluster.installed import Experiment, Installed, pod, selector, service
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
    six: Mapping[str, str]
    """IPv6 addresses of the pods, by their IPv4 ones."""

    @contextmanager
    def chaos(self, spec: dict[str, Any]) -> Iterator[Experiment]:
        """Have an experiment on the client; afterwards everything must be as it was."""
        with (
            self.installed.leaves_nothing(self.namespace),
            self.installed.experiment("NetworkChaos", self.namespace, spec) as experiment,
        ):
            yield experiment
        is_well(self.there)
        is_well(self.by_six().there)

    def to_server(self, **spec: Any) -> dict[str, Any]:
        """Describe what happens between client and server."""
        target = {"mode": "all", "selector": selector(self.namespace, app="server")}
        return {"target": target, **spec}

    def by_six(self) -> "Ends":
        """Say how the same are reached by IPv6."""
        there, elsewhere, back = (
            replace(path, address=self.six[path.address])
            for path in (self.there, self.elsewhere, self.back)
        )
        return self._replace(there=there, elsewhere=elsewhere, back=back)

    def through(self, address: str) -> Path:
        """Say how the client gets to a Service."""
        return replace(self.there, address=address)


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
    addresses = {
        name: installed.addresses(namespace, name) for name in ("client", "server", "other")
    }
    there, elsewhere, back = (
        Path(installed, namespace, source, addresses[far][0])
        for source, far in (("client", "server"), ("client", "other"), ("server", "client"))
    )
    ends = Ends(installed, namespace, there, elsewhere, back, dict(addresses.values()))
    for each in (ends, ends.by_six()):
        serves(each.there)
        serves(each.elsewhere)
    yield ends
    installed.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="module")
def six(ends: Ends) -> Ends:
    """The same, by IPv6."""
    return ends.by_six()


def slow(path: Path) -> None:
    assert 95 < path.ping().middle_ms < 150
    assert seconds(path) > 0.19  # two packets of the client's are waited for: SYN and request


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

LIMITS: dict[str, dict[str, Any]] = {
    "bandwidth": {
        "action": "bandwidth",
        "bandwidth": {"rate": "8mbit", "limit": 200000, "buffer": 20000},
    },
    "rate": {"action": "netem", "rate": {"rate": "8mbit"}},
}


def is_well(path: Path) -> None:
    pings = path.ping(20)
    assert (pings.lost, pings.duplicates) == (0, 0)
    assert pings.middle_ms < 40


@pytest.mark.parametrize("shape", SHAPES)
def test_packets_suffer_as_asked_and_no_others(ends: Ends, six: Ends, shape: str) -> None:
    spec, felt = SHAPES[shape]
    with ends.chaos(ends.to_server(**spec)) as experiment:
        experiment.confirmed()
        for family in (ends, six):
            felt(family.there)
            is_well(family.elsewhere)


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_is_proven_by_traffic_that_reaches_it(ends: Ends, limit: str) -> None:
    with ends.chaos(ends.to_server(**LIMITS[limit])) as experiment:
        experiment.wait("AllInjected")
        sent: list[float] = []

        def proven() -> bool:
            sent.append(ends.there.megabits())
            return experiment.verdicts() == ["Confirmed"]

        until("the proof", proven, 90)
        assert 4 < sent[-1] < 10
        assert ends.elsewhere.megabits(1) > 20


# An end that sends is refused, which proves the cut. The other one hears nothing, and can tell that
# from a silent sender only where it had the time to ping before.
@pytest.mark.parametrize(
    ("direction", "from_client", "from_server", "proven"),
    [
        ("to", False, True, ["."]),
        ("from", True, False, [".Target"]),
        ("both", False, False, [".", ".Target"]),
    ],
)
def test_a_partition_cuts_the_direction_that_was_asked_for(
    ends: Ends,
    six: Ends,
    direction: str,
    from_client: bool,
    from_server: bool,
    proven: list[str],
) -> None:
    with ends.chaos(ends.to_server(action="partition", direction=direction)) as experiment:
        experiment.confirmed(*proven)
        assert "Mismatch" not in experiment.verdicts(".", ".Target")
        for family in (ends, six):
            assert family.there.datagram_arrives("server") == from_client
            assert family.back.datagram_arrives("client") == from_server
            assert family.there.fetch() is None
            is_well(family.elsewhere)


def test_a_delay_in_both_directions_is_felt_twice(ends: Ends, six: Ends) -> None:
    spec = ends.to_server(action="delay", delay={"latency": "50ms"}, direction="both")
    with ends.chaos(spec) as experiment:
        experiment.confirmed(".", ".Target")
        for family in (ends, six):
            assert 95 < family.there.ping().middle_ms < 200
            assert 95 < family.back.ping().middle_ms < 200


@pytest.mark.parametrize("entry", ["{address}", "{address}:80", "{address}/32"])
def test_an_address_outside_can_be_cut_off(ends: Ends, entry: str) -> None:
    far = entry.format(address=ends.there.address)
    with ends.chaos({"action": "partition", "externalTargets": [far]}) as experiment:
        experiment.wait("AllInjected")
        assert ends.there.fetch() is None
        assert ends.elsewhere.fetch() is not None
        assert (ends.there.ping().lost == 0) == (":80" in entry)


def test_an_address_outside_has_one_family(ends: Ends, six: Ends) -> None:
    spec = {"action": "partition", "externalTargets": [f"[{six.there.address}]:80"]}
    with ends.chaos(spec) as experiment:
        experiment.wait("AllInjected")
        assert six.there.fetch() is None
        is_well(six.there)
        for path in (six.elsewhere, ends.there):
            assert path.fetch() is not None


@pytest.mark.parametrize(("network", "direction"), [("{address}/64", "to"), ("::/0", "from")])
def test_a_network_of_ipv6_outside_can_be_cut_off(
    ends: Ends, six: Ends, network: str, direction: str
) -> None:
    outside = [network.format(address=six.there.address)]
    spec = {"action": "partition", "externalTargets": outside, "direction": direction}
    with ends.chaos(spec) as experiment:
        experiment.wait("AllInjected")
        assert six.there.fetch() is None
        assert six.elsewhere.fetch() is None
        assert six.there.datagram_arrives("server") == (direction == "from")
        assert six.back.datagram_arrives("client") == (direction == "to")
        is_well(ends.there)


def test_a_delay_of_all_ipv6_is_none_of_ipv4(ends: Ends, six: Ends) -> None:
    delay = {"action": "delay", "delay": {"latency": "100ms"}, "externalTargets": ["::/0"]}
    with ends.chaos(delay) as experiment:
        experiment.wait("AllInjected")
        slow(six.there)
        slow(six.elsewhere)
        is_well(ends.there)
        assert "Mismatch" not in experiment.verdicts()


@pytest.fixture(scope="module")
def services(ends: Ends) -> dict[str, Path]:
    """The way of the client to a Service of the server, and to one of both servers.

    Each has an address of either family.
    """
    both = {"ipFamilyPolicy": "RequireDualStack"}
    mixed = service(ends.namespace, "mixed", selector={"tier": "far"}, **both)
    ends.installed.apply(service(ends.namespace, "server", **both), mixed)
    for name in ("server", "other"):
        ends.installed.kubectl("label", "pod", name, "tier=far", f"-n={ends.namespace}")
    found = {}
    for name in ("server", "mixed"):
        spec = ends.installed.read("service", name, ends.namespace)["spec"]
        for title, address in zip((name, f"{name} six"), spec["clusterIPs"], strict=True):
            found[title] = ends.through(address)
            serves(found[title])
    return found


def test_a_partition_cuts_what_is_sent_to_a_service_of_the_targets(
    ends: Ends, services: dict[str, Path]
) -> None:
    with ends.chaos(ends.to_server(action="partition")) as experiment:
        experiment.confirmed()
        for six in ("", " six"):
            server, mixed = services[f"server{six}"], services[f"mixed{six}"]
            assert server.fetch() is None
            # One of two connections goes to the other server.
            until("the other server", lambda mixed=mixed: mixed.fetch() is not None, 60)
            assert server.address in told(ends)
            assert mixed.address not in told(ends)


def test_a_delay_holds_what_is_sent_to_a_service_of_the_targets(
    ends: Ends, services: dict[str, Path]
) -> None:
    with ends.chaos(ends.to_server(action="delay", delay={"latency": "100ms"})) as experiment:
        experiment.confirmed()
        assert seconds(services["server"]) > 0.19
        assert seconds(services["server six"]) > 0.19
    for name in ("server", "server six"):
        # A busy machine may be slow once, without anybody's delay.
        assert min(seconds(services[name]) for _ in range(5)) < 0.19


def seconds(path: Path) -> float:
    took = path.fetch(5)
    assert took is not None
    return took


@pytest.mark.parametrize("port", ["", ":80"])
def test_a_service_can_be_cut_off_by_its_name(
    ends: Ends, services: dict[str, Path], port: str
) -> None:
    name = f"mixed.{ends.namespace}.svc.cluster.local"
    with ends.chaos({"action": "partition", "externalTargets": [f"{name}{port}"]}) as experiment:
        experiment.wait("AllInjected")
        assert services["mixed"].fetch() is None
        assert services["mixed six"].fetch() is None
        assert ends.through(name).fetch() is None
        assert services["server"].fetch() is not None
        assert services["server six"].fetch() is not None
        is_well(ends.there)
        experiment.confirmed()  # by what was tried above: a Service answers no ping
    serves(ends.through(name))


def told(ends: Ends) -> str:
    """Read what agents are told now."""
    return "".join(str(fault["spec"]) for fault in ends.installed.node_faults())
