from pathlib import Path

import pytest
import yaml

from squall.errors import InvalidFault
from squall.injection.privileges import BY_NEED, privileges
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


def test_an_agent_needs_what_the_action_takes_and_no_more():
    cut = explain(manifest("NetworkChaos", action="partition"), "shop").capabilities
    burnt = explain(manifest("StressChaos", stressors={"cpu": {"workers": 1}}), "shop").capabilities
    assert {"NET_ADMIN", "NET_RAW"} <= set(cut)
    assert {"NET_ADMIN", "NET_RAW"}.isdisjoint(burnt)
    assert {"SETUID", "SETGID"} <= set(burnt)


def test_the_author_needs_rights_in_every_namespace_that_may_be_hit():
    selectors = {
        "selector": {"namespaces": ["a", "b"]},
        "target": {"mode": "all", "selector": {"pods": {"c": ["x"]}}},
    }
    told = explain(manifest("NetworkChaos", action="partition", **selectors), "own")
    author = [right.where for right in told.rights if right.who == "author"]
    assert author == ["own", "a", "b", "c"]


def test_who_reads_a_secret_is_told():
    tls = {"secretName": "web", "secretNamespace": "vault", "certName": "c", "keyName": "k"}
    spec = {"target": "Request", "port": 443, "abort": True, "tls": tls}
    told = explain(manifest("HTTPChaos", **spec), "shop").rights
    read = [(right.who, right.verbs, right.where) for right in told if right.resource == "secrets"]
    assert read == [("author", ("get",), "vault"), ("controller", ("get",), "vault")]


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


def test_an_installed_agent_has_every_capability_that_an_experiment_can_need():
    agent = next(o for o in objects(Settings()) if o["kind"] == "DaemonSet")
    container = agent["spec"]["template"]["spec"]["containers"][0]
    granted = set(container["securityContext"]["capabilities"]["add"])
    assert set(privileges(BY_NEED)) <= granted


MANIFESTS = [
    one
    for path in sorted((Path(__file__).parents[4] / "tests/compatibility/manifests").glob("*.yaml"))
    for one in yaml.safe_load_all(path.read_text())
]


@pytest.mark.parametrize("one", MANIFESTS, ids=lambda one: one["metadata"]["name"])
def test_what_controller_and_agent_need_they_are_given(one):
    roles = [o for o in objects(Settings()) if o["kind"] in {"Role", "ClusterRole"}]
    for right in explain(one, "shop").rights:
        if right.who == "author" or right.resource == "secrets":
            continue
        named, _, group = right.resource.partition(".")
        given = {
            verb
            for role in roles
            if role["metadata"]["name"].startswith(f"squall-{right.who}")
            for rule in role["rules"]
            if group in rule.get("apiGroups", ()) and named in rule.get("resources", ())
            for verb in rule["verbs"]
        }
        assert set(right.verbs) <= given, right


def test_pods_are_read_where_they_are_selected_and_not_beside():
    told = explain(manifest("DNSChaos", action="error", selector={"namespaces": ["far"]}), "own")
    read = {(right.who, right.where) for right in told.rights if right.resource == "pods"}
    assert read == {("controller", "far"), ("agent", "far")}
