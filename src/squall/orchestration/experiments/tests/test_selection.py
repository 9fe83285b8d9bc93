import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.api.selector import ContainerSelector, PodSelector
from squall.orchestration.experiments.draw import quota, ranked, seed_of
from squall.orchestration.experiments.pods import Container, Inventory, Pod, read_pod
from squall.orchestration.experiments.selection import Scope, select

NODES = {"n1": {"zone": "a"}, "n2": {"zone": "b"}, "n3": {"zone": "b"}}


def pod(name, namespace="default", **fields):
    containers = fields.pop("containers", (Container("main", "x://1", running=True),))
    defaults = {"node": "n1", "fields": {"metadata.name": name, "spec.nodeName": "n1"}}
    return Pod(namespace, name, uid=f"uid-{name}", containers=containers, **(defaults | fields))


def chosen(inventory, selector, mode="all", value="", *, seed="s", per_container=False, names=()):
    wanted = ContainerSelector.model_validate(
        {"selector": selector, "mode": mode, "value": value, "containerNames": list(names)}
    )
    scope = Scope({".": wanted}, "default", seed, per_container)
    return select(scope, Inventory(inventory, NODES))


def ids(selection):
    return sorted(choice.id for choice in selection.chosen)


PODS = [
    pod("web-0", labels={"app": "web", "tier": "front"}, annotations={"team": "red"}),
    pod("web-1", labels={"app": "web"}, node="n2"),
    pod("db-0", labels={"app": "db"}, node="n3", phase="Running"),
    pod("far-0", "other", labels={"app": "web"}),
]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, ["default/db-0", "default/web-0", "default/web-1"]),
        ({"namespaces": ["other"]}, ["other/far-0"]),
        ({"namespaces": ["default", "other"], "labelSelectors": {"app": "web"}},
         ["default/web-0", "default/web-1", "other/far-0"]),
        ({"labelSelectors": {"app": "web", "tier": "front"}}, ["default/web-0"]),
        ({"annotationSelectors": {"team": "red"}}, ["default/web-0"]),
        ({"fieldSelectors": {"metadata.name": "web-1"}}, ["default/web-1"]),
        ({"nodes": ["n2"]}, ["default/web-1"]),
        ({"nodeSelectors": {"zone": "b"}}, ["default/db-0", "default/web-1"]),
        ({"nodes": ["n1"], "nodeSelectors": {"zone": "b"}},
         ["default/db-0", "default/web-0", "default/web-1"]),
        ({"expressionSelectors": [{"key": "app", "operator": "In", "values": ["db", "x"]}]},
         ["default/db-0"]),
        ({"expressionSelectors": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]},
         ["default/db-0", "default/web-1"]),
        ({"expressionSelectors": [{"key": "tier", "operator": "Exists"}]}, ["default/web-0"]),
        ({"expressionSelectors": [{"key": "tier", "operator": "DoesNotExist"}]},
         ["default/db-0", "default/web-1"]),
        ({"podPhaseSelectors": ["Running"], "nodes": ["n3"]}, ["default/db-0"]),
        ({"podPhaseSelectors": ["Pending", "Running"], "nodes": ["n3"]}, ["default/db-0"]),
        ({"podPhaseSelectors": ["!Running"]}, []),
        ({"pods": {"other": ["far-0", "gone"]}, "labelSelectors": {"app": "db"}}, ["other/far-0"]),
    ],
)  # fmt: skip
def test_selectors_choose_as_upstream_does(selector, expected):
    assert ids(chosen(PODS, selector)) == expected


@pytest.mark.parametrize(
    ("unfit", "reason"),
    [
        (pod("p", phase="Succeeded"), "is completed (Succeeded)"),
        (pod("p", phase="Failed"), "is completed (Failed)"),
        (pod("p", phase="Pending"), "is not running (Pending)"),
        (pod("p", deleting=True), "is being deleted"),
        (pod("p", node="n9"), "is on node 'n9', which is not known here"),
        (pod("p", containers=(Container("main"),)), "has no running container"),
    ],
)
def test_what_cannot_be_hit_is_skipped_with_a_reason(unfit, reason):
    selection = chosen([unfit, pod("fit")], {})
    assert ids(selection) == ["default/fit"]
    assert [(s.id, s.reason) for s in selection.skipped] == [("default/p", reason)]


def test_a_listed_pod_that_does_not_exist_is_skipped_with_a_reason():
    selection = chosen(PODS, {"pods": {"default": ["web-0", "gone"]}})
    assert [(s.id, s.reason) for s in selection.skipped] == [("default/gone", "does not exist")]


def test_nothing_to_hit_says_why():
    assert "matches no pod" in chosen([], {}).empty
    assert "default/p is completed" in chosen([pod("p", phase="Failed")], {}).empty


def test_an_unknown_field_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match=r"spec.color.*metadata.name"):
        chosen(PODS, {"fieldSelectors": {"spec.color": "red"}})


def test_containers_are_the_first_or_the_named_ones():
    two = pod("two", containers=(Container("a", "x://a", True), Container("b", "x://b", True)))
    assert ids(chosen([two], {}, per_container=True)) == ["default/two/a"]
    assert ids(chosen([two], {}, per_container=True, names=["b", "z"])) == ["default/two/b"]
    assert "named z" in chosen([two], {}, per_container=True, names=["z"]).empty


@pytest.mark.parametrize(
    ("mode", "value", "total", "expected"),
    [
        ("one", "", 5, 1), ("one", "", 0, 0), ("all", "", 5, 5),
        ("fixed", "3", 5, 3), ("fixed", "9", 5, 5),
        ("fixed-percent", "30", 3, 1), ("fixed-percent", "30", 10, 3),
        ("fixed-percent", "34", 3, 2), ("fixed-percent", "100", 7, 7),
    ],
)  # fmt: skip
def test_modes_take_as_many_as_upstream(mode, value, total, expected):
    assert quota(mode, value, total, "s", ".") == expected


def test_a_random_share_takes_every_percentage_up_to_its_limit():
    taken = {quota("random-max-percent", "3", 100, str(seed), ".") for seed in range(200)}
    assert taken == {0, 1, 2, 3}


def test_every_target_is_drawn_about_as_often():
    firsts = [ranked(str(seed), ".", "abcde")[0] for seed in range(2000)]
    assert all(300 < firsts.count(name) < 500 for name in "abcde")


names = st.lists(st.text("abcdef", min_size=1, max_size=4), unique=True, max_size=12)
modes = st.sampled_from(
    [
        ("one", ""),
        ("all", ""),
        ("fixed", "2"),
        ("fixed-percent", "40"),
        ("random-max-percent", "80"),
    ]
)


@given(names, modes, st.integers(0, 99), st.randoms(use_true_random=False))
def test_one_seed_gives_one_answer_whatever_the_order(found, mode, seed, random):
    pods = [pod(name) for name in found]
    first = chosen(pods, {}, *mode, seed=str(seed))
    random.shuffle(pods)
    assert chosen(pods, {}, *mode, seed=str(seed)).chosen == first.chosen


@given(names, st.text("xyz", min_size=1, max_size=3), st.integers(0, 99))
def test_a_new_candidate_moves_nobody_else(found, new, seed):
    before = ranked(str(seed), ".", found)
    assert [name for name in ranked(str(seed), ".", [*found, new]) if name != new] == before


def test_a_seed_beats_the_uid_and_each_object_has_its_own():
    assert seed_of(7, "uid") == "7"
    assert seed_of(0, "uid") == "0"
    assert seed_of(None, "uid-1") != seed_of(None, "uid-2")


def test_both_ends_must_find_somebody():
    ends = {
        key: PodSelector.model_validate(
            {"selector": {"labelSelectors": {"app": app}}, "mode": "all"}
        )
        for key, app in ((".", "web"), (".Target", "no"))
    }
    selection = select(Scope(ends, "default", "s"), Inventory(PODS, NODES))
    assert not selection.chosen
    assert "spec.target.selector matches no pod" in selection.empty


def test_a_pod_of_the_api_is_read_with_its_containers_and_addresses():
    found = read_pod(
        {
            "metadata": {"name": "p", "namespace": "x", "uid": "u"},
            "spec": {
                "nodeName": "n1",
                "hostNetwork": True,
                "containers": [{"name": "a"}, {"name": "b"}],
            },
            "status": {
                "phase": "Running",
                "podIP": "10.0.0.1",
                "containerStatuses": [
                    {"name": "a", "containerID": "x://a", "state": {"terminated": {}}},
                    {"name": "b", "containerID": "x://b", "state": {"running": {}}},
                ],
            },
        }
    )
    assert found.addresses == ("10.0.0.1",)
    assert [c.name for c in found.containers] == ["a", "b"]
    assert found.host_network
    assert found.first_running.name == "b"
    assert found.fields["status.podIP"] == "10.0.0.1"
