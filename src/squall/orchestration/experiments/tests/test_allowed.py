"""Who is selected in a real cluster: every sort of container, and only what its owners allow."""

import pytest

from squall.api.metadata import INJECT, INJECT_ENABLED
from squall.api.policy import Policy
from squall.api.selector import ContainerSelector
from squall.api.status import INJECTED
from squall.faults import kinds
from squall.orchestration.experiments.choosing import scope_of
from squall.orchestration.experiments.following import follow
from squall.orchestration.experiments.pods import Container, Inventory, Pod, read_pod
from squall.orchestration.experiments.records import fresh
from squall.orchestration.experiments.selection import Scope, select

NODES: dict[str, dict[str, str]] = {"n1": {}}
RUNNING = (Container("main", "x://1", running=True),)


def pod(name, namespace="default", **fields):
    return Pod(namespace, name, uid=name, node="n1", **({"containers": RUNNING} | fields))


def select_from(pods, policy, *, namespaces=None, mode="all", value="", by_network=False):
    wanted = {"selector": {"namespaces": ["default", "kube-system"]}, "mode": mode, "value": value}
    selectors = {".": ContainerSelector.model_validate(wanted)}
    scope = Scope(selectors, "default", "s", policy=policy, by_network=by_network)
    return select(scope, Inventory(pods, NODES, namespaces))


def ids(selection):
    return sorted(choice.id for choice in selection.chosen)


OPEN = {"default": {INJECT: INJECT_ENABLED}}


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (Policy(protected_namespaces=["kube-system"]), "is in kube-system, which this"),
        (Policy(target_namespace="default"), "is outside of default"),
        (Policy(opt_in_namespaces=True), "is in kube-system, which is not annotated"),
        (Policy(opt_in_labels={"chaos": "yes"}), "lacks the label chaos=yes"),
    ],
)
def test_what_the_installation_refuses_is_passed_over_with_the_reason(policy, reason):
    pods = [pod("web", labels={"chaos": "yes"}), pod("dns", "kube-system")]
    selection = select_from(pods, policy, namespaces=OPEN)
    assert ids(selection) == ["default/web"]
    assert [s.id for s in selection.skipped] == ["kube-system/dns"]
    assert reason in selection.skipped[0].reason
    assert selection.skipped[0].told


def test_a_namespace_that_nobody_knows_has_not_opted_in():
    selection = select_from([pod("web")], Policy(opt_in_namespaces=True))
    assert "is not annotated" in selection.empty


def test_a_percentage_is_taken_of_what_may_be_hit():
    pods = [pod(f"web-{n}") for n in range(4)] + [pod(f"d-{n}", "kube-system") for n in range(6)]
    policy = Policy(protected_namespaces=["kube-system"])
    selection = select_from(pods, policy, mode="fixed-percent", value="50")
    assert len(selection.chosen) == 2


@pytest.mark.parametrize(("most", "allowed"), [(49, False), (50, True), (100, True)])
def test_too_much_of_what_matches_is_refused_as_a_whole(most, allowed):
    pods = [pod(f"web-{n}") for n in range(4)]
    selection = select_from(pods, Policy(most_percent=most), mode="fixed", value="2")
    assert bool(selection.chosen) is allowed
    assert ("spec.selector would hit 2 of 4 pods" in selection.empty) is not allowed


def test_pods_on_the_network_of_their_node_are_spared_by_network_faults_alone():
    pods = [pod("web"), pod("cni", host_network=True)]
    spared = select_from(pods, Policy(), by_network=True)
    assert ids(spared) == ["default/web"]
    assert "shares the network of its node" in spared.skipped[0].reason
    assert len(select_from(pods, Policy(allow_host_network=True), by_network=True).chosen) == 2
    assert len(select_from(pods, Policy()).chosen) == 2


@pytest.mark.parametrize(
    ("name", "action", "by"),
    [
        ("NetworkChaos", {"action": "delay", "delay": {"latency": "1ms"}}, True),
        ("DNSChaos", {"action": "error"}, True),
        ("HTTPChaos", {"target": "Request", "port": 80, "abort": True}, True),
        ("PodChaos", {"action": "pod-kill"}, False),
    ],
)
def test_a_kind_that_needs_the_network_is_one_that_changes_it(name, action, by):
    kind = kinds()[name]
    spec = kind.spec.model_validate({"selector": {}, "mode": "all"} | action)
    scope = scope_of(kind, spec, namespace="default", seed="s", policy=Policy())
    assert scope.by_network is by


def test_a_live_selection_never_follows_more_than_is_allowed():
    wanted = {"selector": {}, "mode": "fixed", "value": "2"}
    scope = Scope(
        {".": ContainerSelector.model_validate(wanted)}, "default", "s",
        policy=Policy(most_percent=50),
    )  # fmt: skip
    records = [
        fresh(".", f"default/{n}").model_copy(update={"phase": INJECTED}) for n in ("a", "b")
    ]
    four = follow(scope, records, Inventory([pod(n) for n in "abcd"], NODES))
    assert not four.released
    two = follow(scope, records, Inventory([pod(n) for n in "ab"], NODES))
    assert len(two.released) == 1


def test_every_sort_of_container_can_be_named():
    states = {
        sort: [{"name": name, "containerID": f"x://{name}", "state": {"running": {}}}]
        for sort, name in (
            ("containerStatuses", "app"),
            ("initContainerStatuses", "mesh"),
            ("ephemeralContainerStatuses", "debug"),
        )
    }
    found = read_pod(
        {
            "metadata": {"name": "p", "namespace": "default", "uid": "u"},
            "spec": {
                "nodeName": "n1",
                "initContainers": [{"name": "setup"}, {"name": "mesh", "restartPolicy": "Always"}],
                "containers": [{"name": "app"}],
                "ephemeralContainers": [{"name": "debug"}],
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1",
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], **states,
            },
        }
    )  # fmt: skip
    assert found.addresses == ("10.0.0.1", "fd00::1")
    for names, expected in (
        ([], ["app"]),
        (["mesh"], ["mesh"]),
        (["debug", "app"], ["app", "debug"]),
        (["setup"], []),
    ):
        selector = ContainerSelector.model_validate(
            {"selector": {}, "mode": "all", "containerNames": names}
        )
        scope = Scope({".": selector}, "default", "s", per_container=True)
        selection = select(scope, Inventory([found], NODES))
        assert ids(selection) == [f"default/p/{name}" for name in expected]


@pytest.mark.parametrize(
    ("phase", "running", "expected"),
    [
        ("Pending", True, ["default/web/first"]),
        ("Pending", False, []),
        ("Succeeded", True, []),
    ],
)
def test_an_init_container_that_runs_can_be_named_though_its_pod_is_pending(
    phase, running, expected
):
    first = Container("first", "x://1", running=running)
    starting = pod("web", phase=phase, containers=(Container("main"),), others=(first,))
    wanted = {"selector": {}, "mode": "all", "containerNames": ["first"]}
    scope = Scope(
        {".": ContainerSelector.model_validate(wanted)}, "default", "s", per_container=True
    )
    assert ids(select(scope, Inventory([starting], NODES))) == expected
