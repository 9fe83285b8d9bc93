import pytest

from squall.errors import InvalidFault
from squall.faults import kinds
from squall.injection.privileges import NEEDS, capabilities
from squall.installation.explain import explain
from squall.installation.manifests import objects
from squall.installation.settings import Settings


def manifest(kind, **spec):
    return {
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": kind,
        "metadata": {"name": "one"},
        "spec": {"mode": "all", "selector": {}, **spec},
    }


def test_what_the_api_brings_about_needs_no_agent():
    told = explain(manifest("PodChaos", action="pod-kill"), "shop")
    assert (told.agent, told.capabilities) == (False, {})
    assert {"agent"}.isdisjoint(right.who for right in told.rights)
    assert any("delete" in right.verbs and right.resource == "pods" for right in told.rights)


def test_cutting_needs_less_than_delaying():
    cut = explain(manifest("NetworkChaos", action="partition"), "shop")
    delayed = explain(manifest("NetworkChaos", action="delay", delay={"latency": "1s"}), "shop")
    assert set(cut.capabilities) < set(delayed.capabilities)


def test_the_author_needs_rights_in_every_namespace_that_may_be_hit():
    selectors = {
        "selector": {"namespaces": ["a", "b"]},
        "target": {"mode": "all", "selector": {"pods": {"c": ["x"]}}},
    }
    told = explain(manifest("NetworkChaos", action="partition", **selectors), "own")
    author = [right.where for right in told.rights if right.who == "author"]
    assert author == ["own", "a", "b", "c"]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (manifest("Wobble"), "Wobble is no experiment"),
        (manifest("PodChaos", action="fly"), "spec.action"),
    ],
)
def test_what_cannot_be_explained_says_why(broken, told):
    with pytest.raises(InvalidFault, match=told):
        explain(broken, "shop")


def test_every_need_of_every_kind_has_its_capabilities():
    for kind in kinds().values():
        assert set(kind.needs) <= set(NEEDS)


def test_an_installed_agent_has_every_capability_that_an_experiment_can_need():
    agent = next(o for o in objects(Settings()) if o["kind"] == "DaemonSet")
    container = agent["spec"]["template"]["spec"]["containers"][0]
    granted = set(container["securityContext"]["capabilities"]["add"])
    assert set(capabilities(tuple(NEEDS))) <= granted
