import pytest

from squall.errors import InvalidFault
from squall.installation.settings import policy_of


def test_a_policy_protects_the_system_and_itself_unless_told_otherwise():
    assert policy_of("squall").protected_namespaces == ["kube-system", "squall"]
    assert policy_of("x", ["policy.protectedNamespaces=[]"]).protected_namespaces == []


def test_assignments_are_yaml():
    policy = policy_of("x", ["policy.mostPercent=30", "policy.optInLabels={chaos: 'yes'}"])
    assert (policy.most_percent, policy.opt_in_labels) == (30, {"chaos": "yes"})


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("policy.mostPercent=300", "less than or equal to 100"),
        ("policy.wobble=1", r"there is no such setting; .*policy\.mostPercent"),
        ("mostPercent=1", "there is no such setting"),
        ("policy.mostPercent", "there is no such setting"),
        ("policy.optInLabels={", "not YAML"),
    ],
)
def test_a_wrong_assignment_says_what_there_is(assignment, told):
    with pytest.raises(InvalidFault, match=told):
        policy_of("x", [assignment])


def test_nobody_is_hit_in_the_namespace_of_the_agents():
    with pytest.raises(InvalidFault, match="root on every node"):
        policy_of("squall", target_namespace="squall")
