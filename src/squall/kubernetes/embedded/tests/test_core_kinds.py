import pytest

from squall.api.cluster import ApiError, Resource
from squall.kubernetes.embedded.core_kinds import core_kinds
from squall.kubernetes.embedded.kinds import Kinds
from squall.kubernetes.embedded.loopback import Loopback
from squall.kubernetes.embedded.objects import Objects
from squall.kubernetes.embedded.store import Store

KINDS = {kind.resource.kind: kind for kind in core_kinds()}
INVALID = 422


@pytest.fixture
def api(tmp_path):
    store = Store(tmp_path / "squall.db")
    yield Loopback(Objects(store, Kinds(core_kinds())))
    store.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_object_without_a_name_is_refused_by_the_path_of_what_is_missing(api, kind):
    resource: Resource = KINDS[kind].resource
    nameless = {"metadata": {"namespace": "default"} if resource.namespaced else {}}
    with pytest.raises(ApiError, match=r"metadata\.name|spec|involvedObject") as refused:
        await api.create(resource, nameless)
    assert refused.value.code == INVALID


async def test_a_secret_whose_data_is_no_map_is_refused(api):
    secret = {
        "metadata": {"name": "s", "namespace": "default"},
        "data": ["x"],
        "stringData": {"a": "b"},
    }
    with pytest.raises(ApiError, match="data"):
        await api.create(KINDS["Secret"].resource, secret)
