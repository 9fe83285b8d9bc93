import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.faults.network import KIND
from squall.faults.network.endpoint import Endpoint, endpoint
from squall.faults.network.model import NetworkChaosSpec, NetworkFault, share
from squall.injection.kind import Peer
from squall.injection.served import served_kinds
from squall.injection.world.network import Impairment

SERVED = served_kinds({"NetworkChaos": KIND})[0]
SELECTOR = {"selector": {"labelSelectors": {"app": "web"}}, "mode": "all"}
PEERS = {
    ".": [Peer("d/web", ("10.0.0.1", "fd00::1"))],
    ".Target": [Peer("d/db-0", ("10.0.0.2",)), Peer("d/db-1", ("10.0.0.3", "10.0.0.2"))],
}
WEB = (Endpoint(host="10.0.0.1/32"), Endpoint(host="fd00::1/128"))
DB = (Endpoint(host="10.0.0.2/32"), Endpoint(host="10.0.0.3/32"))
DNS = Endpoint(host="example.org", port=443)
DELAY = {"latency": "100ms", "jitter": "10ms", "correlation": "25"}


def spec(**fields):
    return NetworkChaosSpec.model_validate({**SELECTOR, **fields})


def refused(**fields):
    obj = {"metadata": {"namespace": "d"}, "spec": {**SELECTOR, **fields}}
    return [str(cause) for cause in SERVED.validate(SERVED.default(obj), None)]


def ways(fault):
    return [(cut.way, cut.peers, cut.device) for cut in fault.cuts]


@pytest.mark.parametrize(
    ("direction", "of_main", "of_target"),
    [
        ("to", [("out", DB, "eth1")], [("in", WEB, "eth2")]),
        ("from", [("in", DB, "eth1")], [("out", WEB, "eth2")]),
        (
            "both",
            [("out", DB, "eth1"), ("in", DB, "eth1")],
            [("out", WEB, "eth2"), ("in", WEB, "eth2")],
        ),
    ],
)
def test_a_partition_cuts_at_both_ends(direction, of_main, of_target):
    asked = spec(
        action="partition",
        direction=direction,
        target=SELECTOR,
        device="eth1@if7",
        targetDevice="eth2",
    )
    assert ways(share(asked, ".", PEERS)) == of_main
    assert ways(share(asked, ".Target", PEERS)) == of_target


@pytest.mark.parametrize(
    ("direction", "of_main", "of_target"),
    [("to", DB, None), ("from", None, WEB), ("both", DB, WEB)],
)
def test_packets_are_shaped_where_they_are_sent(direction, of_main, of_target):
    asked = spec(action="delay", delay=DELAY, direction=direction, target=SELECTOR)
    for key, expected in ((".", of_main), (".Target", of_target)):
        fault = share(asked, key, PEERS)
        assert (fault and fault.shape and fault.shape.peers) == expected


def test_a_service_in_front_of_the_other_end_is_meant_too():
    peers = {".Target": [*PEERS[".Target"], Peer("d/db", translated=("10.96.0.9",))]}
    service = Endpoint(host="10.96.0.9/32", translated=True)
    asked = share(spec(action="partition", target=SELECTOR), ".", peers)
    assert ways(asked) == [("out", (*DB, service), "")]
    told = asked.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert NetworkFault.model_validate(told) == asked
    assert "translated" not in told["cuts"][0]["peers"][0]


def test_without_another_end_every_packet_is_meant():
    assert ways(share(spec(action="partition"), ".", PEERS)) == [("out", None, "")]
    assert share(spec(action="loss", loss={"loss": "5"}), ".", PEERS).shape.peers is None


def test_another_end_that_has_no_address_yet_means_no_packet():
    asked = spec(action="partition", target=SELECTOR)
    assert ways(share(asked, ".", {".Target": [Peer("d/db")]})) == [("out", (), "")]


def test_external_targets_join_the_selected_ones():
    asked = spec(action="partition", target=SELECTOR, externalTargets=["example.org:443"])
    assert ways(share(asked, ".", PEERS)) == [("out", (*DB, DNS), "")]
    assert ways(share(asked, ".Target", PEERS)) == [("in", (*WEB, DNS), "")]


def test_every_part_of_netem_acts_whatever_the_action_is_called():
    asked = spec(
        action="delay",
        delay={**DELAY, "reorder": {"reorder": "50", "gap": 3, "correlation": "5"}},
        loss={"loss": "1.5", "correlation": "2"},
        duplicate={"duplicate": "3"},
        corrupt={"corrupt": "4"},
        rate={"rate": "1mbps"},
        bandwidth={"rate": "1bps", "limit": 1, "buffer": 1},
    )
    assert asked.impairment() == Impairment(
        delay_us=100_000,
        jitter_us=10_000,
        delay_correlation=25,
        reorder=50,
        reorder_gap=3,
        reorder_correlation=5,
        loss=1.5,
        loss_correlation=2,
        duplicate=3,
        corrupt=4,
        rate=1_000_000,
    )


def test_bandwidth_is_a_bucket_and_nothing_else():
    asked = spec(
        action="bandwidth",
        delay=DELAY,
        bandwidth={"rate": "8mbit", "limit": 20, "buffer": 10, "peakrate": 5, "minburst": 4},
    )
    assert asked.impairment() == Impairment(
        bandwidth_rate=1_000_000,
        bandwidth_limit=20,
        bandwidth_buffer=10,
        bandwidth_peakrate=5,
        bandwidth_minburst=4,
    )


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"action": "bandwidth"}, "spec.bandwidth", "action bandwidth does nothing without it"),
        ({"action": "netem"}, "spec.delay", "action netem does nothing without it"),
        ({"action": "loss"}, "spec.loss", "action loss does nothing without it"),
        (
            {"action": "delay", "delay": {"latency": "10"}},
            "spec.delay.latency",
            'Invalid value: "10": spec.delay.latency in body should match',
        ),
        (
            {"action": "loss", "loss": {"loss": "110"}},
            "spec.loss.loss",
            'Invalid value: "110": is not a percentage; it must be from 0 to 100',
        ),
        (
            {"action": "bandwidth", "bandwidth": {"rate": "fast", "limit": 1, "buffer": 1}},
            "spec.bandwidth.rate",
            'Invalid value: "fast": is not a rate',
        ),
        (
            {"action": "bandwidth", "bandwidth": {"rate": "1mbps", "limit": 2**31, "buffer": 1}},
            "spec.bandwidth.limit",
            "Invalid value: 2147483648: Input should be less than or equal to 2147483647",
        ),
        (
            {"action": "delay", "delay": DELAY, "direction": "both"},
            "spec.direction",
            "`from` and `both` direction cannot be used when targets is empty",
        ),
        (
            {
                "action": "delay",
                "delay": DELAY,
                "direction": "from",
                "target": SELECTOR,
                "externalTargets": [],
            },
            "spec.direction",
            "external targets cannot be used with `from` and `both` direction",
        ),
        (
            {"action": "partition", "externalTargets": ["10.0.0.1", "not a name"]},
            "spec.externalTargets[1]",
            'Invalid value: "not a name": is no address, CIDR, host name or host:port',
        ),
        (
            {"action": "partition", "target": {**SELECTOR, "mode": "fixed", "value": "0"}},
            "spec.target.value",
            "value must be greater than 0 with mode:fixed",
        ),
    ],
)
def test_what_could_never_act_is_refused_with_its_path(fields, path, said):
    (message,) = refused(**fields)
    assert message.startswith(f"{path}: ")
    assert said in message


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "partition", "direction": "from"},
        {"action": "partition", "direction": "both", "externalTargets": ["10.0.0.0/8"]},
        {"action": "delay", "loss": {"loss": "5"}},
        {"action": "loss", "loss": {"loss": "5", "correlation": ""}},
        {"action": "delay", "delay": DELAY, "direction": ""},
    ],
)
def test_what_upstream_accepts_and_can_act_is_accepted(fields):
    assert refused(**fields) == []


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.7", "10.0.0.7/32", 0),
        ("10.0.0.7:80", "10.0.0.7/32", 80),
        ("10.1.2.3/8", "10.0.0.0/8", 0),
        ("0.0.0.0/0", "0.0.0.0/0", 0),
        ("fd00::7", "fd00::7/128", 0),
        ("[fd00::7]:80", "fd00::7/128", 80),
        ("fd00::/8", "fd00::/8", 0),
        ("fe80::1%eth0", "fe80::1/128", 0),
        ("example.org", "example.org", 0),
        ("db_0.local.:5432", "db_0.local.", 5432),
        ("localhost", "localhost", 0),
    ],
)
def test_the_other_end_reads_as_address_network_or_name(text, host, port):
    assert endpoint(text) == Endpoint(host=host, port=port)
    assert endpoint(text).is_name == ("/" not in host)


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", "-a", "a b", "1.2.3", "256.1.1.1", "10.0.0.1/33", "a:b", ":80", "[]"]
)
def test_what_is_no_other_end_is_refused(text):
    with pytest.raises(ValueError, match="is no address"):
        endpoint(text)


@given(st.text())
def test_no_text_raises_anything_but_a_value_error(text):
    try:
        found = endpoint(text)
    except ValueError:
        return
    assert found.is_name == ("/" not in found.host)


@given(
    st.sampled_from(["to", "from", "both"]),
    st.sampled_from(["partition", "delay"]),
    st.booleans(),
    st.sampled_from([".", ".Target"]),
)
def test_a_share_survives_the_wire(direction, action, external, key):
    more = {"externalTargets": ["10.0.0.0/8", "a.b:1"]} if external else {}
    asked = spec(action=action, delay=DELAY, direction=direction, target=SELECTOR, **more)
    fault = share(asked, key, PEERS)
    if fault is not None:
        wire = fault.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        assert NetworkFault.model_validate(wire) == fault
    assert NetworkChaosSpec.model_validate(asked.model_dump(mode="json", by_alias=True)) == asked
