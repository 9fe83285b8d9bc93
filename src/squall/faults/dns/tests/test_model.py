import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.faults import kinds
from squall.faults.dns.model import DNSChaosSpec, DNSFault, in_ascii, record_type, share
from squall.injection.served import served_kinds
from squall.injection.world.names import Answer

(SERVED,) = [kind for kind in served_kinds(kinds()) if kind.resource.kind == "DNSChaos"]


def manifest(**spec):
    spec = {"mode": "one", "selector": {}, "action": "error", **spec}
    return {
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "DNSChaos",
        "metadata": {"name": "x", "namespace": "default"},
        "spec": spec,
    }


def shared(**spec):
    asked = DNSChaosSpec.model_validate(manifest(**spec)["spec"])
    return share(asked, ".", {})


def refusals(**spec):
    return [str(problem) for problem in SERVED.validate(manifest(**spec), None)]


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (None, Answer("code", 2)),
        ("SERVFAIL", Answer("code", 2)),
        ("NXDOMAIN", Answer("code", 3)),
        ("NODATA", Answer("code", 0)),
        ("REFUSED", Answer("code", 5)),
        ("timeout", Answer("nothing")),
        ("truncated", Answer("truncated")),
    ],
)
def test_an_error_is_said_in_the_words_of_dns(error, answer):
    spec = {} if error is None else {"error": error}
    assert shared(**spec) == DNSFault(answer=answer)


def test_a_late_right_answer_is_none_with_a_delay():
    late = shared(error="none", delay="200ms", jitter="50ms")
    assert late == DNSFault(answer=Answer("relayed"), delay_us=200_000, jitter_us=50_000)


def test_random_takes_the_addresses_that_are_given():
    assert shared(action="random").answer == Answer("addresses")
    given = shared(action="random", addresses=["192.0.2.1", "2001:DB8::1"])
    assert given.answer == Answer("addresses", addresses=("192.0.2.1", "2001:db8::1"))


def test_everything_else_reaches_the_target():
    found = shared(
        patterns=["*.Example.COM.", "bücher.example"], types=["mx", "TYPE99"], percent=5, seed=7
    )
    assert found.patterns == ("*.example.com", "xn--bcher-kva.example")
    assert (found.types, found.percent, found.seed) == ((15, 99), 5, 7)
    assert DNSFault.model_validate(found.model_dump(mode="json", by_alias=True)) == found


@pytest.mark.parametrize(
    ("spec", "path", "why"),
    [
        ({"action": "delay"}, "spec.action", "error"),
        ({"patterns": [""]}, "spec.patterns[0]", "leave `patterns` out"),
        ({"patterns": ["a", "b c"]}, "spec.patterns[1]", "space"),
        ({"patterns": ["bü*.example"]}, "spec.patterns[0]", "must be ASCII"),
        ({"patterns": ["a." * 127 + "b"]}, "spec.patterns[0]", "253"),
        ({"patterns": ["a..b"]}, "spec.patterns[0]", "empty label"),
        ({"patterns": ["ü" * 64]}, "spec.patterns[0]", "no name that can be looked up"),
        ({"patterns": ["a" * 64 + ".example"]}, "spec.patterns[0]", "63"),
        ({"patterns": [r"a\.b.example"]}, "spec.patterns[0]", "no escapes"),
        ({"patterns": [".*example.com"]}, "spec.patterns[0]", "are wild by themselves"),
        ({"patterns": ["^a$"]}, "spec.patterns[0]", "no regular expression"),
        ({"patterns": ["(a|b).example"]}, "spec.patterns[0]", "no regular expression"),
        ({"patterns": ["[a-z]+.example"]}, "spec.patterns[0]", "no regular expression"),
        ({"patterns": ["https://a.example"]}, "spec.patterns[0]", "no scheme, no port"),
        ({"patterns": ["a.example:53"]}, "spec.patterns[0]", "no scheme, no port"),
        ({"error": "YXDOMAIN"}, "spec.error", "NXDOMAIN"),
        ({"error": "none"}, "spec.delay", "does nothing without it"),
        ({"error": "none", "delay": "0s"}, "spec.delay", "does nothing without it"),
        ({"error": "timeout", "delay": "1s"}, "spec.delay", "never felt"),
        ({"jitter": "1s"}, "spec.jitter", "does nothing without delay"),
        ({"delay": "61s"}, "spec.delay", "use error timeout"),
        ({"delay": "soon"}, "spec.delay", "write it as 10ms"),
        ({"delay": "-1s"}, "spec.delay", "negative"),
        ({"delay": "1s", "jitter": "-1s"}, "spec.jitter", "negative"),
        ({"action": "random", "error": "NXDOMAIN"}, "spec.error", "is for action error"),
        ({"addresses": ["192.0.2.1"]}, "spec.addresses", "are for action random"),
        ({"action": "random", "addresses": ["web"]}, "spec.addresses[0]", "no IPv4 or IPv6"),
        ({"action": "random", "addresses": ["fe80::1%eth0"]}, "spec.addresses[0]", "no IPv4"),
        ({"types": ["MIX"]}, "spec.types[0]", "write others as TYPE99"),
        ({"types": ["TYPE0"]}, "spec.types[0]", "TYPE99"),
        ({"types": ["TYPE65536"]}, "spec.types[0]", "TYPE99"),
        ({"action": "random", "types": ["A", "MX"]}, "spec.types[1]", "answers A and AAAA"),
        ({"percent": 0}, "spec.percent", "1"),
        ({"percent": 101}, "spec.percent", "100"),
    ],
)
def test_what_could_never_act_is_refused_with_its_path_and_reason(spec, path, why):
    (only,) = refusals(**spec)
    assert only.startswith(f"{path}:")
    assert why in only


def test_a_length_is_written_as_that_of_any_other_kind():
    late = shared(delay="0.5s", jitter="1m0.25s")
    assert (late.delay_us, late.jitter_us) == (500_000, 60_250_000)
    assert refusals(delay="1s500ms", jitter="") == []


def test_several_flaws_are_told_at_once():
    assert len(refusals(patterns=[""], types=["MIX"], addresses=["x"])) == 4


@pytest.mark.parametrize("pattern", ["a" * 40 + "*" + "b" * 40, "a" * 40 + "?" + "b" * 40, "_x.y"])
def test_what_a_name_may_fit_is_not_refused(pattern):
    assert not refusals(patterns=[pattern])


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("Straße.example", "xn--strae-oqa.example"),
        ("ΛΌΓΟς.gr", "xn--" + "λόγος".encode("punycode").decode() + ".gr"),
        ("日本。jp", "xn--wgv71a.jp"),
    ],
)
def test_international_names_are_written_as_resolvers_write_them(name, wire):
    assert in_ascii(name) == wire


@pytest.mark.parametrize("name", ["A", "aaaa", "TYPE1", "type257"])
def test_types_are_known_by_name_and_by_number(name):
    assert record_type(name) in {1, 28, 257}


@given(st.text(max_size=30))
def test_any_pattern_is_refused_or_reaches_the_wire_in_ascii(text):
    if not refusals(patterns=[text]):
        assert in_ascii(text).isascii()
        assert shared(patterns=[text]).patterns


def test_containers_are_the_targets_and_the_whole_kind_is_of_the_network():
    kind = kinds()["DNSChaos"]
    spec = DNSChaosSpec.model_validate(manifest(containerNames=["app"])["spec"])
    assert kind.per_container(spec)
    assert kind.by_network
    assert not kinds()["StressChaos"].by_network
