from copy import deepcopy

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squall.api.policy import Policy
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.webhook.reviews import NotAReview, decode
from squall.webhook.tests.asking import NETWORK, asked, patch_of, review, said
from squall.webhook.verdicts import fill_in, judge

KINDS = {kind.resource.kind: kind for kind in served_kinds(kinds())}
FREE = Policy()
TEXT = st.characters(exclude_categories=("Cs",))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(TEXT),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(TEXT), inner),
)
FIELDS = st.sampled_from(["selector", "mode", "value", "action", "target", "delay", "direction"])


def filled(kind="NetworkChaos", spec=None, old=None):
    return patch_of(fill_in(KINDS[kind], review(kind, spec, old)))


def judged(spec, old=None, kind="NetworkChaos", policy=FREE, **request):
    return said(judge(KINDS[kind], policy, review(kind, spec, old, **request)))


def test_defaults_come_as_a_patch_and_nothing_is_patched_twice():
    bare = {"action": "delay", "mode": "all", "selector": {}, "delay": {"latency": "10ms"}}
    assert sorted(filled(spec=bare), key=lambda op: op["path"]) == [
        {"op": "add", "path": "/spec/delay/correlation", "value": "0"},
        {"op": "add", "path": "/spec/delay/jitter", "value": "0ms"},
        {"op": "add", "path": "/spec/direction", "value": "to"},
        {"op": "add", "path": "/spec/selector/namespaces", "value": ["here"]},
    ]
    assert filled(spec=NETWORK) == []


def test_the_namespace_of_a_selector_is_that_of_the_request():
    sent = orjson.loads(asked(kind="PodChaos", spec={"selector": {}}))
    del sent["request"]["object"]["metadata"]["namespace"]
    answer = fill_in(KINDS["PodChaos"], decode(orjson.dumps(sent)))
    assert patch_of(answer) == [
        {"op": "add", "path": "/spec/selector/namespaces", "value": ["here"]}
    ]


def test_a_manifest_that_is_applied_again_means_what_is_there():
    older = deepcopy(NETWORK)
    del older["direction"]  # stored before this default was known
    assert filled(spec=NETWORK, old=older) == [{"op": "remove", "path": "/spec/direction"}]
    assert filled(spec=older, old=older) == []


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"mode": "fixed", "value": "0"}, "value must be greater than 0 with mode:fixed"),
        ({"mode": "fixed", "value": "x"}, "parse value field error:"),
        (
            {"mode": "fixed-percent", "value": "0"},
            "value of 0 is invalid, Must be (0,100] with mode:fixed-percent",
        ),
    ],
)
def test_what_is_wrong_is_refused_in_upstreams_words(spec, complaint):
    assert judged(NETWORK) == ""
    assert complaint in judged(NETWORK | spec)


def test_every_reason_is_a_cause_with_its_path():
    wrong = NETWORK | {"mode": "fixed", "value": "0", "duration": "soon"}
    status = judge(KINDS["NetworkChaos"], FREE, review(spec=wrong))["response"]["status"]
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert {cause["field"] for cause in status["details"]["causes"]} == {"spec.duration"}
    assert status["details"]["kind"] == "NetworkChaos"


def test_a_spec_never_changes_and_the_rest_may():
    assert "Cannot update chaos spec" in judged(NETWORK | {"mode": "one"}, old=NETWORK)
    assert judged(NETWORK, old=NETWORK) == ""
    bare = NETWORK | {"selector": {}}
    assert judged(bare, old=NETWORK) == ""


def test_the_policy_refuses_what_it_can_tell_from_the_manifest():
    guarded = Policy(protected_namespaces=["kube-system"], most_percent=30)
    listed = {"namespaces": ["kube-system"], "pods": {"here": ["a"]}}
    some = NETWORK | {"mode": "one"}
    assert judged(some | {"selector": {"namespaces": ["here", "kube-system"]}}, policy=guarded) == (
        'spec.selector.namespaces[1]: Invalid value: "kube-system": '
        "is in kube-system, which this installation protects"
    )
    assert judged(some | {"selector": listed}, policy=guarded) == ""
    assert "30 %" in judged(NETWORK, policy=guarded)
    assert "31 of 100" in judged(NETWORK | {"mode": "fixed-percent", "value": "31"}, policy=guarded)
    assert judged(some, old=some, policy=Policy(target_namespace="there")) == ""
    assert "outside of there" in judged(some, policy=Policy(target_namespace="there"))
    assert judged(some, policy=Policy(opt_in_namespaces=True, opt_in_labels={"a": "b"})) == ""


def test_what_was_sent_to_the_wrong_path_is_refused():
    answer = judge(KINDS["NetworkChaos"], FREE, review("PodChaos", {}))
    assert answer["response"]["uid"] == "705ab4f5"
    assert "PodChaos.chaos-mesh.org was sent to it" in said(answer)
    assert "DELETE is not reviewed" in judged(NETWORK, operation="DELETE")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b'{"kind": "AdmissionReview"}',
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1"}',
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": 1}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_what_is_no_review_is_not_answered_as_one(body):
    with pytest.raises(NotAReview):
        decode(body)


@settings(max_examples=25)
@given(st.dictionaries(FIELDS, JSON), JSON, JSON)
def test_nothing_that_may_be_sent_makes_it_fail(spec, odd, user):
    for request in (
        review(spec=spec),
        review(spec=odd),
        review(spec=NETWORK, old=spec),
        review(object=odd, oldObject=odd, userInfo=user),
        review(namespace=odd, name=odd),
    ):
        assert fill_in(KINDS["NetworkChaos"], request)["response"]["uid"] == request.uid
        assert judge(KINDS["NetworkChaos"], FREE, request)["response"]["uid"] == request.uid
