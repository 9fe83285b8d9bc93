import pytest

from squall.api.policy import Extent, Policy

OPTED_IN = {"chaos-mesh.org/inject": "enabled"}


@pytest.mark.parametrize(
    ("policy", "annotations", "why"),
    [
        ({}, None, ""),
        ({"targetNamespace": "shop"}, None, ""),
        ({"targetNamespace": "other"}, None, "outside of other"),
        ({"protectedNamespaces": ["kube-system", "shop"]}, None, "protects"),
        ({"protectedNamespaces": ["kube-system"]}, None, ""),
        ({"optInNamespaces": True}, OPTED_IN, ""),
        ({"optInNamespaces": True}, {"chaos-mesh.org/inject": "disabled"}, "not annotated"),
        ({"optInNamespaces": True}, None, "not annotated"),
        ({"optInLabels": {"app": "web"}}, None, ""),
        ({"optInLabels": {"app": "web", "chaos": "yes"}}, None, "chaos=yes"),
    ],
)
def test_a_pod_is_refused_with_a_reason(policy, annotations, why):
    refusal = Policy.model_validate(policy).refuses("shop", {"app": "web"}, annotations)
    assert why in refusal
    assert bool(why) == bool(refusal)


@pytest.mark.parametrize(
    ("most", "hit", "of", "refused"),
    [
        (100, 5, 5, False),
        (30, 3, 10, False),
        (30, 4, 10, True),
        (1, 1, 100, False),
        (99, 1, 1, True),
    ],
)
def test_an_extent_is_refused_above_the_largest_percentage(most, hit, of, refused):
    why = Policy(most_percent=most).refuses_extent(Extent(hit=hit, of=of))
    assert bool(why) == refused
