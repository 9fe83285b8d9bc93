import pytest

from squall.webhook.reach import plural_of, reaches


def reached(kind, spec, namespace="here"):
    return {
        (reach.plural, place)
        for reach in reaches(kind, namespace, {"spec": spec})
        for _, place in reach.namespaces
    }


def fault(*namespaces, **more):
    return {"mode": "all", "selector": {"namespaces": list(namespaces)}, **more}


@pytest.mark.parametrize(
    ("kind", "plural"),
    [
        ("NetworkChaos", "networkchaos"),
        ("PhysicalMachineChaos", "physicalmachinechaos"),
        ("Schedule", "schedules"),
        ("Workflow", "workflows"),
        ("WorkflowNode", "workflownodes"),
        ("PhysicalMachine", "physicalmachines"),
        ("StatusCheck", "statuschecks"),
        ("RemoteCluster", "remoteclusters"),
    ],
)
def test_kinds_are_named_as_rbac_names_them(kind, plural):
    assert plural_of(kind) == plural


def test_namespaces_of_every_selector_and_of_listed_pods_count():
    spec = fault("a", target=fault("b"))
    spec["selector"]["pods"] = {"c": ["one"]}
    assert reached("NetworkChaos", spec) == {("networkchaos", n) for n in "abc"}


@pytest.mark.parametrize("selector", [{}, {"namespaces": []}, {"labelSelectors": {"a": "b"}}])
def test_a_selector_that_names_none_means_the_objects_own(selector):
    assert reached("PodChaos", {"selector": selector}) == {("podchaos", "here")}


def test_an_empty_name_means_every_namespace():
    assert reached("PodChaos", fault("")) == {("podchaos", "")}


def test_what_a_schedule_carries_acts_as_its_own_kind():
    spec = {"schedule": "@every 1m", "type": "PodChaos", "podChaos": fault("a")}
    assert reached("Schedule", spec) == {("podchaos", "here"), ("podchaos", "a")}


def test_templates_of_a_workflow_are_followed_as_deep_as_they_go():
    inner = {"schedule": "@hourly", "physicalmachineChaos": fault("m"), "stressChaos": fault("s")}
    templates = [
        {"name": "one", "networkChaos": fault("n", target=fault("t"))},
        {"name": "two", "schedule": inner},
        {"name": "three", "futureChaos": fault("f")},
        {"name": "four", "statusCheck": {"type": "HTTP"}, "podChaos": None},
    ]
    workflow = {"entry": "one", "templates": templates}
    expected = {
        ("networkchaos", "here"),
        ("networkchaos", "n"),
        ("networkchaos", "t"),
        ("schedules", "here"),
        ("physicalmachinechaos", "here"),
        ("physicalmachinechaos", "m"),
        ("stresschaos", "here"),
        ("stresschaos", "s"),
        ("futurechaos", "here"),
        ("futurechaos", "f"),
        ("statuschecks", "here"),
    }
    assert reached("Workflow", workflow) == expected
    scheduled = {"schedule": "@daily", "workflow": workflow}
    assert reached("Schedule", scheduled) == expected | {("workflows", "here")}


def test_machines_count_by_their_namespace():
    spec = {"action": "vm", "mode": "all", "selector": {"physicalMachines": {"lab": ["m1"]}}}
    assert reached("PhysicalMachineChaos", spec) == {("physicalmachinechaos", "lab")}


def test_depth_does_not_matter():
    deep = fault("a")
    for _ in range(20_000):
        deep = {"x": [deep]}
    assert reached("PodChaos", deep) == {("podchaos", "a")}


@pytest.mark.parametrize("odd", [None, 1, "x", [], [1], {"selector": 1}, {"selector": None}])
def test_what_is_no_selector_reaches_nowhere(odd):
    assert reached("PodChaos", odd) == set()
