"""What the port `Cluster` promises, held against everything that stands behind it."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from squall.api.cluster import (
    LEASE,
    NODE_FAULT,
    AlreadyExists,
    ApiError,
    Change,
    Cluster,
    Conflict,
    NotFound,
    Resource,
)
from squall.api.fake_cluster import FakeCluster
from squall.faults import kinds
from tests.kubernetes.objects import Follower, delay, lease, names, node_fault

NETWORK_CHAOS = kinds()["NetworkChaos"].resource
UNSERVED = Resource("example.com", "v1", "Nothing", "nothings")


@pytest.fixture
def served(cluster: Cluster) -> Cluster:
    """Everything behind the port that knows its kinds."""
    if isinstance(cluster, FakeCluster):
        pytest.skip("the fake serves every kind and validates none")
    return cluster


async def test_a_created_object_has_all_that_the_server_gives_it(cluster: Cluster, namespace: str):
    made = await cluster.create(LEASE, lease(namespace, labels={"app": "web"}))
    assert (made["apiVersion"], made["kind"]) == ("coordination.k8s.io/v1", "Lease")
    assert {"uid", "resourceVersion", "creationTimestamp"} <= made["metadata"].keys()
    assert made["metadata"]["labels"] == {"app": "web"}
    assert made == await cluster.get(LEASE, namespace, "one")


async def test_a_name_that_is_only_begun_is_completed(cluster: Cluster, namespace: str):
    unnamed = lease(namespace, generateName="part-")
    del unnamed["metadata"]["name"]
    first, second = [await cluster.create(LEASE, unnamed) for _ in range(2)]
    assert first["metadata"]["name"].startswith("part-")
    assert first["metadata"]["name"] != second["metadata"]["name"]


async def test_a_taken_name_is_refused(cluster: Cluster, namespace: str):
    await cluster.create(LEASE, lease(namespace))
    with pytest.raises(AlreadyExists, match=r'leases\.coordination\S+ "one" already exists'):
        await cluster.create(LEASE, lease(namespace))


async def test_what_is_not_there_is_not_found(cluster: Cluster, namespace: str):
    missing = r'leases\.coordination\.k8s\.io "none" not found'
    with pytest.raises(NotFound, match=missing):
        await cluster.get(LEASE, namespace, "none")
    with pytest.raises(NotFound, match=missing):
        await cluster.patch(LEASE, namespace, "none", {"spec": {"holderIdentity": "b"}})
    with pytest.raises(NotFound, match=missing):
        await cluster.delete(LEASE, namespace, "none")


async def test_a_kind_that_is_not_served_is_not_found(served: Cluster):
    with pytest.raises(NotFound):
        await served.list(UNSERVED)
    with pytest.raises(NotFound):
        async with Follower(served.watch(UNSERVED)) as follower:
            await follower.next(1)


async def test_lists_are_of_one_namespace_or_of_all(cluster: Cluster, namespace: str, other: str):
    await cluster.create(LEASE, lease(namespace, "here"))
    await cluster.create(LEASE, lease(other, "there"))
    assert names(await cluster.list(LEASE, namespace)) == ["here"]
    everywhere = await cluster.list(LEASE)
    assert {"here", "there"} <= set(names(everywhere))
    assert {(o["apiVersion"], o["kind"]) for o in everywhere} == {
        ("coordination.k8s.io/v1", "Lease")
    }


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ("app=web", ["a", "b"]),
        ("app==web,tier=1", ["a"]),
        ("app!=web", ["c", "d"]),
        ("app", ["a", "b", "c"]),
        ("!app", ["d"]),
        ("tier in (1, 2)", ["a", "b"]),
        ("tier notin (1)", ["b", "c", "d"]),
        ("app=web,tier notin (1)", ["b"]),
    ],
)
async def test_label_selectors_choose(
    cluster: Cluster, namespace: str, labels: str, found: list[str]
):
    for name, marks in {
        "a": {"app": "web", "tier": "1"},
        "b": {"app": "web", "tier": "2"},
        "c": {"app": "db"},
        "d": {},
    }.items():
        await cluster.create(LEASE, lease(namespace, name, labels=marks))
    assert names(await cluster.list(LEASE, namespace, labels=labels)) == found


async def test_field_selectors_choose(cluster: Cluster, namespace: str):
    for name, node in {"a": "n1", "b": "n2", "c": "n1"}.items():
        await cluster.create(NODE_FAULT, node_fault(namespace, name, node))
    by_node = await cluster.list(NODE_FAULT, namespace, fields="spec.nodeName=n1")
    assert names(by_node) == ["a", "c"]
    by_name = await cluster.list(NODE_FAULT, namespace, fields="metadata.name=b")
    assert names(by_name) == ["b"]
    both = await cluster.list(NODE_FAULT, namespace, fields="metadata.name=a,spec.nodeName=n2")
    assert both == []


async def test_a_patch_changes_what_it_names_and_nothing_else(cluster: Cluster, namespace: str):
    made = await cluster.create(LEASE, lease(namespace, labels={"keep": "1", "drop": "1"}))
    patch = {
        "metadata": {"labels": {"drop": None, "new": "1"}},
        "spec": {"leaseDurationSeconds": 20},
    }
    patched = await cluster.patch(LEASE, namespace, "one", patch)
    assert patched["metadata"]["labels"] == {"keep": "1", "new": "1"}
    assert patched["spec"] == {"holderIdentity": "a", "leaseDurationSeconds": 20}
    assert patched["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    assert patched["metadata"]["uid"] == made["metadata"]["uid"]
    assert patched == await cluster.get(LEASE, namespace, "one")


async def test_a_patch_that_changes_nothing_writes_nothing(cluster: Cluster, namespace: str):
    made = await cluster.create(LEASE, lease(namespace))
    again = await cluster.patch(LEASE, namespace, "one", {"spec": {"holderIdentity": "a"}})
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_patch_for_an_older_version_conflicts(cluster: Cluster, namespace: str):
    made = await cluster.create(LEASE, lease(namespace))
    seen = {"resourceVersion": made["metadata"]["resourceVersion"]}
    await cluster.patch(
        LEASE, namespace, "one", {"metadata": seen, "spec": {"holderIdentity": "b"}}
    )
    with pytest.raises(Conflict, match="the object has been modified"):
        await cluster.patch(
            LEASE, namespace, "one", {"metadata": seen, "spec": {"holderIdentity": "c"}}
        )
    assert (await cluster.get(LEASE, namespace, "one"))["spec"]["holderIdentity"] == "b"


async def test_status_and_spec_are_written_apart(cluster: Cluster, namespace: str):
    made = await cluster.create(NODE_FAULT, {**node_fault(namespace), "status": {"targets": []}})
    assert "status" not in made
    assert made["metadata"]["generation"] == 1

    status = {"observedGeneration": 1, "targets": []}
    told = await cluster.patch(
        NODE_FAULT,
        namespace,
        "one",
        {"status": status, "spec": {"desiredPhase": "Stop"}},
        subresource="status",
    )
    assert (told["status"], told["spec"]) == (status, made["spec"])
    assert told["metadata"]["generation"] == 1

    spec = {"spec": {"desiredPhase": "Stop"}, "status": {"observedGeneration": 9}}
    stopped = await cluster.patch(NODE_FAULT, namespace, "one", spec)
    assert (stopped["spec"]["desiredPhase"], stopped["status"]) == ("Stop", status)
    assert stopped["metadata"]["generation"] == 2

    marked = await cluster.patch(NODE_FAULT, namespace, "one", {"metadata": {"labels": {"a": "b"}}})
    assert marked["metadata"]["generation"] == 2


async def test_an_applied_object_is_created_then_kept(cluster: Cluster, namespace: str):
    wanted = lease(namespace, labels={"app": "web"})
    made = await cluster.apply(LEASE, wanted, manager="one")
    assert (made["metadata"]["labels"], made["spec"]) == ({"app": "web"}, wanted["spec"])
    again = await cluster.apply(LEASE, wanted, manager="one")
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_an_applied_object_loses_what_its_manager_no_longer_names_and_nothing_else(
    cluster: Cluster, namespace: str
):
    await cluster.apply(LEASE, lease(namespace, labels={"keep": "1", "drop": "1"}), manager="one")
    await cluster.patch(LEASE, namespace, "one", {"metadata": {"labels": {"foreign": "1"}}})
    wanted = lease(namespace, labels={"keep": "2"})
    applied = await cluster.apply(LEASE, wanted, manager="one")
    assert applied["metadata"]["labels"] == {"keep": "2", "foreign": "1"}


async def test_an_applied_object_takes_over_what_others_set(cluster: Cluster, namespace: str):
    await cluster.create(LEASE, lease(namespace))
    wanted = lease(namespace)
    wanted["spec"] = {"holderIdentity": "b"}
    applied = await cluster.apply(LEASE, wanted, manager="one")
    assert applied["spec"]["holderIdentity"] == "b"


async def test_a_deleted_object_is_gone(cluster: Cluster, namespace: str):
    made = await cluster.create(LEASE, lease(namespace))
    await cluster.delete(LEASE, namespace, "one", uid=made["metadata"]["uid"])
    with pytest.raises(NotFound):
        await cluster.get(LEASE, namespace, "one")
    again = await cluster.create(LEASE, lease(namespace))
    assert again["metadata"]["uid"] != made["metadata"]["uid"]


async def test_deletion_spares_a_namesake(cluster: Cluster, namespace: str):
    await cluster.create(LEASE, lease(namespace))
    with pytest.raises(Conflict):
        await cluster.delete(LEASE, namespace, "one", uid="00000000-0000-4000-8000-000000000000")
    assert await cluster.get(LEASE, namespace, "one")


async def test_an_object_with_finalizers_stays_until_they_are_gone(
    cluster: Cluster, namespace: str
):
    held = node_fault(namespace, finalizers=["squall.dev/a", "squall.dev/b"])
    made = await cluster.create(NODE_FAULT, held)
    assert "deletionTimestamp" not in made["metadata"]
    await cluster.delete(NODE_FAULT, namespace, "one")
    await cluster.delete(NODE_FAULT, namespace, "one")
    going = await cluster.get(NODE_FAULT, namespace, "one")
    assert going["metadata"]["deletionTimestamp"]
    assert going["metadata"]["generation"] == 2

    await cluster.patch(
        NODE_FAULT, namespace, "one", {"metadata": {"finalizers": ["squall.dev/b"]}}
    )
    assert await cluster.get(NODE_FAULT, namespace, "one")
    await cluster.patch(NODE_FAULT, namespace, "one", {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await cluster.get(NODE_FAULT, namespace, "one")


async def test_nothing_new_can_hold_an_object_that_is_being_deleted(
    cluster: Cluster, namespace: str
):
    await cluster.create(NODE_FAULT, node_fault(namespace, finalizers=["squall.dev/a"]))
    await cluster.delete(NODE_FAULT, namespace, "one")
    late = {"metadata": {"finalizers": ["squall.dev/a", "squall.dev/late"]}}
    with pytest.raises(ApiError) as refused:
        await cluster.patch(NODE_FAULT, namespace, "one", late)
    assert refused.value.code == 422


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": "explode"}, r'spec.action: Unsupported value: "explode"'),
        ({"mode": None}, r"spec.mode: Required value"),
        ({"selector": "all"}, r"spec.selector: Invalid value: .* must be of type object"),
        ({"delay": {"jitter": "1ms"}}, r"spec.delay.latency: Required value"),
    ],
)
async def test_an_object_that_breaks_its_schema_is_refused_whole(
    served: Cluster, namespace: str, change: dict[str, object], message: str
):
    bad = delay(namespace)
    bad["spec"] = {k: v for k, v in (bad["spec"] | change).items() if v is not None}
    with pytest.raises(ApiError, match=message) as refused:
        await served.create(NETWORK_CHAOS, bad)
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")
    assert await served.list(NETWORK_CHAOS, namespace) == []


async def test_an_experiment_never_changes_its_spec(served: Cluster, namespace: str):
    made = await served.create(NETWORK_CHAOS, delay(namespace))
    assert made["spec"]["direction"] == "to"  # a default
    with pytest.raises(ApiError, match="Cannot update chaos spec") as refused:
        await served.patch(NETWORK_CHAOS, namespace, "delay", {"spec": {"duration": "6m"}})
    assert refused.value.code == 422
    pause = {"metadata": {"annotations": {"experiment.chaos-mesh.org/pause": "true"}}}
    paused = await served.patch(NETWORK_CHAOS, namespace, "delay", pause)
    assert paused["spec"] == made["spec"]
    assert paused["metadata"]["generation"] == 1


async def test_a_watch_tells_what_is_there_and_then_what_happens(cluster: Cluster, namespace: str):
    await cluster.create(LEASE, lease(namespace, "first"))
    async with Follower(cluster.watch(LEASE, namespace)) as follower:
        assert await follower.next(2) == ["ADDED first", "SYNCED"]
        await cluster.create(LEASE, lease(namespace, "second"))
        await cluster.patch(LEASE, namespace, "first", {"spec": {"holderIdentity": "b"}})
        await cluster.patch(LEASE, namespace, "first", {"spec": {"holderIdentity": "b"}})
        await cluster.delete(LEASE, namespace, "second")
        assert await follower.next(3) == ["ADDED second", "MODIFIED first", "DELETED second"]


async def test_a_watch_shows_each_step_of_a_held_deletion(cluster: Cluster, namespace: str):
    await cluster.create(NODE_FAULT, node_fault(namespace, finalizers=["squall.dev/a"]))
    async with Follower(cluster.watch(NODE_FAULT, namespace)) as follower:
        assert await follower.next(2) == ["ADDED one", "SYNCED"]
        await cluster.delete(NODE_FAULT, namespace, "one")
        await cluster.patch(NODE_FAULT, namespace, "one", {"metadata": {"finalizers": None}})
        assert await follower.next(2) == ["MODIFIED one", "DELETED one"]


async def test_a_watch_stays_in_its_namespace(cluster: Cluster, namespace: str, other: str):
    async with Follower(cluster.watch(LEASE, namespace)) as follower:
        assert await follower.next(1) == ["SYNCED"]
        await cluster.create(LEASE, lease(other, "elsewhere"))
        await cluster.create(LEASE, lease(namespace, "here"))
        assert await follower.next(1) == ["ADDED here"]


async def test_a_watch_by_field_sees_only_what_matches(cluster: Cluster, namespace: str):
    await cluster.create(NODE_FAULT, node_fault(namespace, "mine", "n1"))
    await cluster.create(NODE_FAULT, node_fault(namespace, "theirs", "n2"))
    watch = cluster.watch(NODE_FAULT, namespace, fields="spec.nodeName=n1")
    async with Follower(watch) as follower:
        assert await follower.next(2) == ["ADDED mine", "SYNCED"]
        stop = {"spec": {"desiredPhase": "Stop"}}
        await cluster.patch(NODE_FAULT, namespace, "theirs", stop)
        await cluster.patch(NODE_FAULT, namespace, "mine", stop)
        await cluster.delete(NODE_FAULT, namespace, "theirs")
        await cluster.create(NODE_FAULT, node_fault(namespace, "another", "n1"))
        assert await follower.next(2) == ["MODIFIED mine", "ADDED another"]


async def test_a_watch_by_label_sees_what_begins_and_ceases_to_match(
    cluster: Cluster, namespace: str
):
    await cluster.create(LEASE, lease(namespace, "a"))
    watch = cluster.watch(LEASE, namespace, labels="squall.dev/stopped=true")
    async with Follower(watch) as follower:
        assert await follower.next(1) == ["SYNCED"]
        for name in ("a", "b"):
            if name == "b":
                await cluster.create(LEASE, lease(namespace, "b"))
            await cluster.patch(LEASE, namespace, name, labelled("true"))
            await cluster.patch(LEASE, namespace, name, {"metadata": {"annotations": {"n": "1"}}})
            await cluster.patch(LEASE, namespace, name, labelled(None))
            seen = [f"{change} {name}" for change in ("ADDED", "MODIFIED", "DELETED")]
            assert await follower.next(3) == seen


def labelled(value: str | None) -> dict[str, Any]:
    return {"metadata": {"labels": {"squall.dev/stopped": value}}}


async def test_the_last_state_comes_with_a_deletion(cluster: Cluster, namespace: str):
    made = await cluster.create(LEASE, lease(namespace))
    async with aclosing(cluster.watch(LEASE, namespace)) as watch, asyncio.timeout(20):
        assert [(await anext(watch)).change for _ in range(2)] == [Change.ADDED, Change.SYNCED]
        await cluster.delete(LEASE, namespace, "one")
        gone = await anext(watch)
    assert gone.change is Change.DELETED
    assert gone.object["spec"] == made["spec"]
    assert gone.object["metadata"]["uid"] == made["metadata"]["uid"]


async def test_many_watches_hear_the_same(cluster: Cluster, namespace: str):
    async with (
        Follower(cluster.watch(LEASE, namespace)) as one,
        Follower(cluster.watch(LEASE, namespace)) as two,
    ):
        assert await one.next(1) == await two.next(1) == ["SYNCED"]
        for name in "abc":
            await cluster.create(LEASE, lease(namespace, name))
        assert await one.next(3) == await two.next(3) == ["ADDED a", "ADDED b", "ADDED c"]
