from squall.api.selector import PodSelector
from squall.api.status import INJECTED, NOT_INJECTED
from squall.orchestration.experiments.following import follow
from squall.orchestration.experiments.pods import Container, Inventory, Pod
from squall.orchestration.experiments.records import fresh
from squall.orchestration.experiments.selection import Scope


def pod(name, **fields):
    containers = fields.pop("containers", (Container("main", "x://1", running=True),))
    return Pod("default", name, node="n1", containers=containers, **fields)


def record(name, phase=INJECTED):
    return fresh(".", f"default/{name}").model_copy(update={"phase": phase})


def followed(records, pods, mode="fixed", value="2"):
    wanted = PodSelector.model_validate({"selector": {}, "mode": mode, "value": value})
    return follow(Scope({".": wanted}, "default", "seed"), records, Inventory(pods, {"n1": {}}))


def names(result):
    return [r.id.removeprefix("default/") for r in result.records]


def test_a_pod_that_is_gone_keeps_its_place_until_it_is_clean():
    result = followed([record("a"), record("b")], [pod("b"), pod("c")])
    assert names(result) == ["a", "b"]
    assert result.released == {(".", "default/a")}


def test_a_clean_place_is_given_to_another_pod():
    result = followed([record("a", NOT_INJECTED), record("b")], [pod("b"), pod("c")])
    assert names(result) == ["b", "c"]
    assert not result.released


def test_a_shrinking_set_gives_up_what_exceeds_its_share():
    records = [record(name) for name in "abc"]
    result = followed(records, [pod("a"), pod("b"), pod("c")], "fixed-percent", "34")
    assert names(result) == ["a", "b", "c"]
    assert len(result.released) == 1


def test_while_a_lost_target_may_carry_the_fault_its_place_is_taken():
    records = [record(name) for name in "abc"]
    result = followed(records, [pod("b"), pod("c")])
    assert len(result.released) == 2
    assert (".", "default/a") in result.released


def test_a_pod_whose_container_restarts_keeps_its_place():
    down = pod("a", containers=(Container("main"),))
    result = followed([record("a")], [down, pod("b")], "one")
    assert names(result) == ["a"]
    assert not result.released


def test_completed_and_deleting_pods_lose_their_place():
    pods = [pod("a", phase="Succeeded"), pod("b", deleting=True), pod("c")]
    result = followed([record("a", NOT_INJECTED), record("b", NOT_INJECTED)], pods)
    assert names(result) == ["c"]
