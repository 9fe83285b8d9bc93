"""The store where it cannot be written."""

import pytest

from squall.api.cluster import ApiError, Change
from squall.kubernetes.embedded.store import Place, Store

PLACE = Place("pods", "default", "web")


def write(store):
    with store.transaction():
        store.write(PLACE, Change.ADDED, {"metadata": {"uid": "u"}}, None)


def test_a_full_disk_is_said_and_passes(tmp_path):
    store = Store(tmp_path / "objects.db")
    store._database.execute("PRAGMA query_only = ON")
    with pytest.raises(ApiError, match="cannot be written") as refused:
        write(store)
    assert refused.value.code == 500
    assert store.get(PLACE) is None
    store._database.execute("PRAGMA query_only = OFF")
    write(store)
    assert store.get(PLACE) is not None
    store.close()
