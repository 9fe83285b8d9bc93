import asyncio
from contextlib import aclosing

import pytest

from squall.api.cluster import (
    NAMESPACE,
    NODE,
    POD,
    AlreadyExists,
    ApiError,
    Change,
    Conflict,
    NotFound,
)
from squall.kubernetes.embedded.core_kinds import core_kinds
from squall.kubernetes.embedded.kinds import Kinds
from squall.kubernetes.embedded.loopback import Loopback
from squall.kubernetes.embedded.objects import Objects
from squall.kubernetes.embedded.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "squall.db")
    yield store
    store.close()


@pytest.fixture
def api(store):
    return Loopback(Objects(store, Kinds(core_kinds())))


def pod(name="web", **spec):
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "x"}], **spec},
    }


async def test_a_created_object_is_read_back(api):
    created = await api.create(POD, pod())
    assert created == await api.get(POD, "default", "web")
    assert created["metadata"]["uid"]
    assert created["status"] == {"phase": "Pending"}


async def test_a_taken_name_is_refused(api):
    await api.create(POD, pod())
    with pytest.raises(AlreadyExists, match='pods "web" already exists'):
        await api.create(POD, pod())


async def test_what_is_missing_is_not_found(api):
    with pytest.raises(NotFound, match='pods "web" not found'):
        await api.get(POD, "default", "web")


async def test_an_unchanged_object_keeps_its_version(api):
    created = await api.create(POD, pod())
    patched = await api.patch(POD, "default", "web", {"metadata": {"labels": {"app": "web"}}})
    assert patched == created


async def test_a_stale_version_is_a_conflict(api):
    created = await api.create(POD, pod())
    await api.patch(POD, "default", "web", {"metadata": {"labels": {"x": "1"}}})
    stale = {"metadata": {"resourceVersion": created["metadata"]["resourceVersion"]}}
    with pytest.raises(Conflict, match="the object has been modified"):
        await api.patch(POD, "default", "web", stale)


async def test_status_is_written_through_its_subresource_alone(api):
    await api.create(POD, pod())
    both = {"status": {"phase": "Running"}, "metadata": {"labels": {"x": "1"}}}
    patched = await api.patch(POD, "default", "web", both)
    assert patched["status"] == {"phase": "Pending"}
    assert patched["metadata"]["labels"]["x"] == "1"
    both["metadata"]["labels"]["x"] = "2"
    patched = await api.patch(POD, "default", "web", both, subresource="status")
    assert patched["status"]["phase"] == "Running"
    assert patched["metadata"]["labels"]["x"] == "1"


async def test_a_finalizer_holds_a_deleted_object(api):
    obj = pod()
    obj["metadata"]["finalizers"] = ["squall.dev/hold"]
    await api.create(POD, obj)
    await api.delete(POD, "default", "web")
    held = await api.get(POD, "default", "web")
    assert held["metadata"]["deletionTimestamp"]
    with pytest.raises(ApiError, match="no new finalizers can be added"):
        await api.patch(POD, "default", "web", {"metadata": {"finalizers": ["a.b/c"]}})
    await api.patch(POD, "default", "web", {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await api.get(POD, "default", "web")


async def test_another_incarnation_is_not_deleted(api):
    await api.create(POD, pod())
    with pytest.raises(Conflict, match="does not match the UID in record"):
        await api.delete(POD, "default", "web", uid="0")


async def test_what_is_owned_goes_with_its_last_owner(api):
    owner = await api.create(NODE, {"metadata": {"name": "laptop"}})
    reference = {"apiVersion": "v1", "kind": "Node", "name": "laptop"}
    obj = pod()
    obj["metadata"]["ownerReferences"] = [{**reference, "uid": owner["metadata"]["uid"]}]
    await api.create(POD, obj)
    await api.delete(NODE, None, "laptop")
    assert await api.list(POD) == []


async def test_a_pod_on_a_node_has_its_grace(api):
    await api.create(POD, pod(nodeName="laptop"))
    await api.delete(POD, "default", "web", grace_seconds=5)
    assert (await api.get(POD, "default", "web"))["metadata"]["deletionGracePeriodSeconds"] == 5
    await api.delete(POD, "default", "web", grace_seconds=0)
    assert await api.list(POD) == []


async def test_a_deleted_namespace_takes_everything_along(api):
    await api.create(NAMESPACE, {"metadata": {"name": "shop"}})
    obj = pod()
    obj["metadata"] |= {"namespace": "shop", "finalizers": ["squall.dev/hold"]}
    await api.create(POD, obj)
    await api.delete(NAMESPACE, None, "shop")
    assert (await api.get(NAMESPACE, None, "shop"))["status"]["phase"] == "Terminating"
    with pytest.raises(ApiError, match="because it is being terminated"):
        await api.create(POD, pod("late") | {"metadata": {"name": "l", "namespace": "shop"}})
    await api.patch(POD, "shop", "web", {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await api.get(NAMESPACE, None, "shop")


async def test_selectors_narrow_a_list(api):
    await api.create(POD, pod("a", nodeName="one"))
    await api.create(POD, pod("b", nodeName="two"))
    names = [o["metadata"]["name"] for o in await api.list(POD, labels="app in (a,c)")]
    assert names == ["a"]
    names = [o["metadata"]["name"] for o in await api.list(POD, fields="spec.nodeName=two")]
    assert names == ["b"]


async def test_a_watch_tells_what_is_there_then_every_change(api):
    await api.create(POD, pod("a"))
    async with asyncio.timeout(5), aclosing(api.watch(POD)) as events:
        seen = [await anext(events), await anext(events)]
        await api.create(POD, pod("b"))
        await api.patch(POD, "default", "a", {"metadata": {"labels": {"x": "1"}}})
        await api.delete(POD, "default", "b")
        seen += [await anext(events) for _ in range(3)]
    told = [(e.change, e.object.get("metadata", {}).get("name")) for e in seen]
    assert told == [
        (Change.ADDED, "a"),
        (Change.SYNCED, None),
        (Change.ADDED, "b"),
        (Change.MODIFIED, "a"),
        (Change.DELETED, "b"),
    ]


async def test_a_selected_watch_sees_an_object_leave(api):
    await api.create(POD, pod("a"))
    watch = api.watch(POD, fields="status.phase=Pending")
    async with asyncio.timeout(5), aclosing(watch) as events:
        await anext(events), await anext(events)
        running = {"status": {"phase": "Running"}}
        await api.patch(POD, "default", "a", running, subresource="status")
        assert (await anext(events)).change is Change.DELETED


async def test_a_watch_that_fell_behind_reports_what_differs(tmp_path):
    store = Store(tmp_path / "short.db", kept_changes=0)
    api = Loopback(Objects(store, Kinds(core_kinds())))
    await api.create(POD, pod("a"))
    await api.create(POD, pod("b"))
    async with asyncio.timeout(5), aclosing(api.watch(POD)) as events:
        for _ in range(3):
            await anext(events)
        await api.delete(POD, "default", "a")
        for number in range(300):
            label = {"metadata": {"labels": {"n": str(number)}}}
            await api.patch(POD, "default", "b", label)
        seen = [await anext(events) for _ in range(3)]
    store.close()
    assert [e.change for e in seen] == [Change.DELETED, Change.MODIFIED, Change.SYNCED]
