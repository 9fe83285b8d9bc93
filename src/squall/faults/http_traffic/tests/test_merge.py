import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.errors import InvalidFault
from squall.faults.http_traffic.merge import merge
from squall.faults.http_traffic.tests.faults import fault, live
from squall.faults.http_traffic.tests.test_model import EVERYTHING, SECRET
from squall.injection.world.http import Certificate, Grpc, HttpState, Patch, Replace, Rule

VALUES = {"shop/web/tls.crt": b"cert\n", "shop/web/tls.key": b"key"}


def test_all_that_is_asked_stands_in_the_rule():
    assert merge([live(fault(**EVERYTHING), secrets=VALUES)]).rules == (
        Rule(
            source="a/.",
            target="Response",
            port=8080,
            path="/api/*",
            method="GET",
            code=200,
            request_headers={"X-Tenant": "a"},
            response_headers={"Content-Type": "application/json"},
            percent=12.5,
            seed=7,
            delay_us=300_000,
            replace=Replace(headers={"Server": "x"}, body="e30=", code=503),
            patch=Patch(headers=(("Set-Cookie", "a=b"),), body={"a": 1}),
            grpc=Grpc(status=14, message="no", trailers={"retry": "no"}, after_messages=3),
        ),
    )


def test_a_port_has_the_certificate_of_the_oldest_fault_that_brings_one():
    values = {"shop/web/tls.crt": b"newer", "shop/web/tls.key": b"newer key"}
    plain, older = fault(abort=True, port=443), fault(abort=True, port=443, tls=SECRET)
    state = merge(
        [live(plain), live(older, "b/.", secrets=VALUES), live(older, "c/.", secrets=values)]
    )
    assert state.certificates == (Certificate(443, "cert\n"),)
    assert state.certificates[0].key == "key"
    assert "key" not in repr(state).replace("keyName", "").replace("key_name", "")


def test_an_authority_is_sent_along():
    asked = fault(abort=True, port=443, tls=SECRET | {"caName": "ca.crt"})
    state = merge([live(asked, secrets=VALUES | {"shop/web/ca.crt": b"ca\n"})])
    assert state.certificates == (Certificate(443, "cert\nca\n"),)


def test_a_fault_without_the_values_of_its_secret_is_refused():
    with pytest.raises(InvalidFault, match="the Secret shop/web came without"):
        merge([live(fault(abort=True, tls=SECRET))])


def test_what_is_empty_does_nothing():
    asked = fault(abort=True, path="", replace={"path": "", "headers": {}}, patch={"queries": []})
    (rule,) = merge([live(asked)]).rules
    assert (rule.path, rule.replace, rule.patch, rule.grpc) == (None, None, None, None)


def test_an_empty_body_is_put_in_place_of_what_is_there():
    (rule,) = merge([live(fault(replace={"body": ""}))]).rules
    assert rule.replace == Replace(body="")


def test_without_a_seed_every_experiment_draws_its_own_and_always_the_same():
    asked = fault(abort=True, percent=50)
    one, other = merge([live(asked, "a/."), live(asked, "b/.")]).rules
    assert one.seed != other.seed
    assert merge([live(asked, "a/.")]).rules == (one,)


faults = st.builds(
    fault, port=st.integers(1, 65535), delay=st.sampled_from(["1ms", "2s"]), percent=st.just(50)
)


@given(st.lists(faults, max_size=4))
def test_rules_stand_in_the_order_of_their_faults_and_one_more_changes_no_other(several):
    all_live = [live(one, f"{at}/.") for at, one in enumerate(several)]
    merged = merge(all_live)
    assert [rule.source for rule in merged.rules] == [one.source for one in all_live]
    for at in range(len(all_live)):
        fewer = merge(all_live[:at] + all_live[at + 1 :])
        assert fewer.rules == merged.rules[:at] + merged.rules[at + 1 :]


def test_nothing_live_is_nothing_in_force():
    assert merge([]) == HttpState()
