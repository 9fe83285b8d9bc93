import os
import signal
import subprocess
import sys

import pytest

from squall.api.cluster import ApiError, Change
from squall.kubernetes.embedded.store import COMPACTED_AT_ONCE, Place, Store

PLACE = Place("pods", "default", "web")

WRITER = """
import sys
from squall.api.cluster import Change
from squall.kubernetes.embedded.store import Place, Store
store, number = Store(sys.argv[1]), 0
while True:
    number += 1
    obj = {"metadata": {"name": f"p{number}", "uid": f"u{number}"}}
    with store.transaction():
        for copy in "ab":
            store.write(Place("pods", copy, f"p{number}"), Change.ADDED, obj, None)
    print(number, store.version, flush=True)
"""


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "squall.db")
    yield store
    store.close()


def write(store, change=Change.ADDED, before=None, **metadata):
    obj = {"metadata": {"name": "web", "uid": "u", **metadata}}
    with store.transaction():
        return store.write(PLACE, change, obj, before)


def put(store):
    store.write(PLACE, Change.ADDED, {"metadata": {"name": "web", "uid": "u"}}, None)


def write_and_fail(store, write=put):
    with store.transaction():
        write(store)
        raise RuntimeError


def test_what_was_acknowledged_outlives_a_kill(tmp_path):
    path = tmp_path / "squall.db"
    for round_ in range(3):
        path.unlink(missing_ok=True)
        (tmp_path / "squall.db-wal").unlink(missing_ok=True)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        acknowledged = [writer.stdout.readline() for _ in range(20 + 17 * round_)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += writer.stdout.read().splitlines(keepends=True)
        writer.wait()
        writer.stdout.close()
        number, version = map(int, [a for a in acknowledged if a.endswith("\n")][-1].split())
        store = Store(path)
        kept = [len(store.bodies("pods", namespace)) for namespace in "ab"]
        assert kept[0] == kept[1] >= number  # both halves of a transaction, or none
        assert store.version >= version
        assert len(store.since("pods", 0, 10_000)) == sum(kept)
        store.close()


def test_a_failed_transaction_leaves_nothing(store):
    version = store.version
    with pytest.raises(RuntimeError):
        write_and_fail(store)
    assert store.get(PLACE) is None
    assert store.version == version
    assert store.since("pods", 0) == []


def test_an_inner_transaction_belongs_to_the_outer(store):
    with pytest.raises(RuntimeError):
        write_and_fail(store, write)
    assert store.get(PLACE) is None


def test_watchers_are_woken_by_what_is_kept_and_by_nothing_else(store):
    with store.woken("pods") as pods, store.woken("nodes") as nodes:
        with store.transaction(keep=False):
            write(store)
        assert not pods.is_set()
        write(store)
        assert pods.is_set()
        assert not nodes.is_set()


def test_versions_go_on_after_a_restart(tmp_path):
    store = Store(tmp_path / "squall.db")
    version = write(store)["metadata"]["resourceVersion"]
    store.close()
    store = Store(tmp_path / "squall.db")
    assert store.version == int(version)
    assert store.get(PLACE)["metadata"]["resourceVersion"] == version
    assert int(write(store)["metadata"]["resourceVersion"]) == int(version) + 1
    store.close()


def test_the_log_is_cut_and_knows_for_whom(tmp_path):
    store = Store(tmp_path / "squall.db", kept_changes=10)
    before = write(store)
    for _ in range(COMPACTED_AT_ONCE):
        before = write(store, Change.MODIFIED, before)
    assert store.forgotten("pods") >= COMPACTED_AT_ONCE - 10
    assert store.forgotten("nodes") == 0
    assert len(store.since("pods", 0, 10_000)) < COMPACTED_AT_ONCE
    store.close()
    store = Store(tmp_path / "squall.db", kept_changes=10)
    assert store.forgotten("nodes") == store.forgotten("pods") >= COMPACTED_AT_ONCE - 10
    store.close()


def test_owners_are_found_until_they_are_dropped(store):
    owned = write(store, ownerReferences=[{"uid": "o1"}, {"uid": "o2"}])
    assert store.owned_by("o1") == store.owned_by("o2") == [PLACE]
    kept = write(store, Change.MODIFIED, owned, ownerReferences=[{"uid": "o2"}])
    assert (store.owned_by("o1"), store.owned_by("o2")) == ([], [PLACE])
    write(store, Change.DELETED, kept, ownerReferences=[{"uid": "o2"}])
    assert store.owned_by("o2") == []


def test_an_object_larger_than_etcd_takes_is_refused(store):
    with pytest.raises(ApiError) as refused:
        write(store, annotations={"a": "x" * 1_500_000})
    assert refused.value.code == 413
    assert store.get(PLACE) is None


def test_a_full_disk_is_said_and_passes(store):
    store._database.execute("PRAGMA query_only = ON")
    with pytest.raises(ApiError, match="cannot be written") as refused:
        write(store)
    assert refused.value.code == 500
    assert store.get(PLACE) is None
    store._database.execute("PRAGMA query_only = OFF")
    write(store)
    assert store.get(PLACE) is not None
