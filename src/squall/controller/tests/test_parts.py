"""Cache, queue, patches and events: what the loop is made of."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from squall.api.cluster import POD, Change, Conflict, Event, Object
from squall.api.fake_cluster import FakeCluster, merged
from squall.clock import FakeClock, settle
from squall.controller.cache import Cache
from squall.controller.carry_out import difference
from squall.controller.metrics import ExperimentMetrics, phase_of
from squall.controller.reading import read_experiment
from squall.controller.recorder import Recorder
from squall.controller.tests.scene import KINDS, NETWORK, Scene, experiment
from squall.controller.work_queue import AT_ONCE, LAST_RETRY_SECONDS, Again, WorkQueue
from squall.orchestration.experiments.announcements import failed


def obj(version, uid="u", **more):
    meta = {"name": "a", "namespace": "x", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": meta, **more}


def cache_of(*events):
    seen: list[Object] = []
    cache = Cache(POD, lambda o: o["metadata"]["resourceVersion"], seen.append)
    for change, one in events:
        cache.take(Event(change, one))
    return cache, seen


def test_a_watch_that_lags_behind_ones_own_write_changes_nothing():
    cache, _ = cache_of((Change.ADDED, obj(9)))
    cache.put(obj(12))
    cache.take(Event(Change.MODIFIED, obj(10)))
    assert cache.values["x", "a"] == "12"
    assert cache.changes == 2


def test_an_object_made_anew_replaces_the_old_one_and_its_late_deletion_does_nothing():
    cache, _ = cache_of((Change.ADDED, obj(9)), (Change.ADDED, obj(11, uid="v")))
    assert cache.values["x", "a"] == "11"
    cache.take(Event(Change.DELETED, obj(10)))
    assert cache.values["x", "a"] == "11"
    cache.take(Event(Change.DELETED, obj(12, uid="v")))
    assert not cache.objects


def test_what_we_let_go_ourselves_does_not_come_back_by_a_late_watch():
    cache, seen = cache_of((Change.ADDED, obj(9)))
    cache.vanish(obj(12))
    assert not cache.objects
    cache.take(Event(Change.MODIFIED, obj(11)))
    assert (cache.objects, len(seen)) == ({}, 2)
    cache.take(Event(Change.DELETED, obj(12)))
    cache.take(Event(Change.ADDED, obj(13, uid="v")))
    assert cache.values["x", "a"] == "13"


def test_where_objects_are_only_read_no_more_is_kept_than_who_they_are():
    cache = Cache(POD, lambda o: o["spec"], lambda _: None, whole=False)
    cache.put(obj(9, spec="long"))
    assert cache.values["x", "a"] == "long"
    assert cache.objects["x", "a"] == obj(9)
    cache.put(obj(10, spec="longer"))
    assert cache.values["x", "a"] == "longer"


def test_a_cache_knows_when_it_is_complete():
    cache, seen = cache_of((Change.ADDED, obj(1)))
    assert not cache.synced.is_set()
    cache.take(Event(Change.SYNCED, {}))
    assert cache.synced.is_set()
    assert len(seen) == 1


json_objects = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2),
        lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)


@given(json_objects, json_objects)
def test_a_difference_is_the_merge_patch_from_one_to_the_other(old, new):
    assert merged(old, difference(old, new)) == new
    assert difference(new, new) == {}


async def working(work):
    clock = FakeClock()
    queue = WorkQueue(work, clock)
    task = asyncio.create_task(queue.run())
    await settle()
    return clock, queue, task


async def test_a_key_asked_for_during_its_work_is_worked_on_once_more():
    gate, times = asyncio.Event(), []

    async def work(key):
        times.append(key)
        await gate.wait()
        return Again()

    _, queue, task = await working(work)
    for _ in range(3):
        queue.ask("a")
        await settle()
    assert times == ["a"]
    gate.set()
    await settle()
    assert times == ["a", "a"]
    task.cancel()


async def test_of_many_keys_few_are_worked_on_at_once_and_all_in_turn():
    order: list[int] = []
    most, at_work = 0, set[int]()

    async def work(key):
        nonlocal most
        at_work.add(key)
        most = max(most, len(at_work))
        await asyncio.sleep(0)
        if key == 0 and order.count(0) < 2:
            queue.ask(0)
        at_work.discard(key)
        order.append(key)
        return Again()

    queue = WorkQueue(work, FakeClock())
    task = asyncio.create_task(queue.run())
    for key in range(5 * AT_ONCE):
        queue.ask(key)
    await settle()
    task.cancel()
    assert most == AT_ONCE
    assert set(order) == set(range(5 * AT_ONCE))
    assert order[-2:] == [0, 0] or order.index(0, 1) > 4 * AT_ONCE  # others went first


async def test_retries_come_slower_and_slower_and_never_too_slow():
    clock, times = FakeClock(), []

    async def work(_):
        times.append(clock.boottime())
        return Again(retry=True)

    queue = WorkQueue(work, clock)
    task = asyncio.create_task(queue.run())
    queue.ask("a")
    await settle()
    await clock.advance(200)
    waits = [b - a for a, b in pairwise(times)]
    assert waits[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert max(waits) == pytest.approx(LAST_RETRY_SECONDS)
    task.cancel()


async def test_a_new_word_on_when_to_look_again_replaces_the_old_one():
    clock, times, answers = FakeClock(), [], [Again(seconds=10), Again(seconds=60), Again()]

    async def work(_):
        times.append(clock.boottime() - 1000)
        return answers.pop(0)

    queue = WorkQueue(work, clock)
    task = asyncio.create_task(queue.run())
    queue.ask("a")
    await settle()
    await clock.advance(5)
    queue.ask("a")
    await settle()
    await clock.advance(100)
    assert times == [0, 5, 65]
    task.cancel()


async def test_what_was_stopped_does_not_come_back_by_itself():
    clock, times = FakeClock(), []

    async def work(_):
        times.append(clock.boottime())
        return Again(seconds=1)

    queue = WorkQueue(work, clock)
    task = asyncio.create_task(queue.run())
    queue.ask("a")
    await settle()
    queue.stop()
    await clock.advance(10)
    assert len(times) == 1
    queue.ask("a")
    await settle()
    assert len(times) == 2
    task.cancel()


async def test_events_carry_upstreams_names_and_annotations():
    cluster, clock = FakeCluster(), FakeClock()
    recorder = Recorder(cluster, clock)
    task = asyncio.create_task(recorder.run())
    about = experiment("slow") | {"apiVersion": "chaos-mesh.org/v1alpha1", "kind": "NetworkChaos"}
    about["metadata"]["uid"] = "u"
    recorder.emit(about, failed("apply chaos", "no such device"))
    recorder.emit(about, failed("apply chaos", "no such device"))
    await settle()
    first, second = cluster.objects.values()
    nanoseconds = int(clock.now().timestamp()) * 10**9
    assert first["metadata"]["name"] == f"slow.{nanoseconds:x}"
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first["message"] == "Failed to apply chaos: no such device"
    assert first["type"] == "Warning"
    assert first["metadata"]["annotations"] == {
        "chaos-mesh.org/type": "failed",
        "chaos-mesh.org/activity": "apply chaos",
        "chaos-mesh.org/err": "no such device",
    }
    assert first["involvedObject"]["name"] == "slow"
    assert recorder.emitted == {("Warning", "Failed", "default"): 2}
    task.cancel()


async def test_metrics_show_experiments_events_and_proof():
    scene = Scene()
    await scene.node("n1")
    await scene.pod("web-0")
    scene.controller()
    await settle()
    await scene.apply(duration="30s")
    await settle()
    obj = scene.cluster.objects[NETWORK, "default", "slow"]
    seen = read_experiment(KINDS["NetworkChaos"], obj)
    registry = CollectorRegistry()
    emitted = {("Normal", "Applied", "default"): 2}
    registry.register(ExperimentMetrics(lambda: [seen], emitted, scene.clock.now))
    text = generate_latest(registry).decode()
    labels = 'kind="NetworkChaos",namespace="default",phase="running"'
    assert "chaos_controller_manager_chaos_experiments{" in text
    assert all(part in text for part in labels.split(","))
    assert "chaos_controller_manager_emitted_event_total{" in text
    assert "squall_fault_verdict{" in text
    assert 'verdict="Confirmed"' in text
    assert 'quantity="rtt_ms"' in text
    assert "} 100.2" in text
    await scene.advance(31)
    obj = scene.cluster.objects[NETWORK, "default", "slow"]
    ended = read_experiment(KINDS["NetworkChaos"], obj)
    assert phase_of(ended, scene.clock.now()) == "finished"
    await scene.close()


async def test_a_decision_made_from_an_old_reading_is_not_written():
    scene = Scene()
    await scene.node("n1")
    await scene.pod("web-0")
    await scene.apply()
    patch = scene.cluster.patch
    refused: list[str] = []

    async def somebody_first(resource, namespace, name, change, **more):
        if resource == NETWORK and not refused:
            refused.append(name)
            await patch(resource, namespace, name, {"metadata": {"finalizers": ["somebody/else"]}})
        try:
            return await patch(resource, namespace, name, change, **more)
        except Conflict:
            refused.append("conflict")
            raise

    scene.cluster.patch = somebody_first
    scene.controller()
    await settle()
    await scene.advance(1)
    assert refused == ["slow", "conflict"]
    finalizers = scene.cluster.objects[NETWORK, "default", "slow"]["metadata"]["finalizers"]
    assert finalizers == ["somebody/else", "chaos-mesh/records"]
    assert scene.hit == {"default/web-0"}
    await scene.close()
