"""The API servers that the contract is held against."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from squall.api.cluster import NAMESPACE, Cluster
from squall.api.crd import definition
from squall.api.fake_cluster import FakeCluster
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.client import HttpCluster
from squall.kubernetes.embedded.core_kinds import core_kinds
from squall.kubernetes.embedded.kinds import Kinds
from squall.kubernetes.embedded.loopback import Loopback
from squall.kubernetes.embedded.objects import Objects
from squall.kubernetes.embedded.store import Store
from testbed.apiserver import ApiServer, missing, running


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    if lacking := missing():
        pytest.fail(f"a real API server needs {', '.join(lacking)}")
    definitions = [definition(kind) for kind in served_kinds(kinds())]
    with running(tmp_path_factory.mktemp("apiserver"), definitions) as server:
        yield server


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Cluster]:
    store = Store(tmp_path / "squall.db")
    yield Loopback(Objects(store, Kinds([*core_kinds(), *served_kinds(kinds())])))
    store.close()


@pytest.fixture(params=["fake", "loopback", "real"])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            yield FakeCluster()
        elif request.param == "loopback":
            yield request.getfixturevalue("loopback")
        else:
            server: ApiServer = request.getfixturevalue(request.param)
            yield await stack.enter_async_context(HttpCluster.from_kubeconfig(server.kubeconfig))


@pytest.fixture
async def namespace(cluster: Cluster) -> str:
    return await _new_namespace(cluster)


@pytest.fixture
async def other(cluster: Cluster) -> str:
    return await _new_namespace(cluster)


async def _new_namespace(cluster: Cluster) -> str:
    name = f"contract-{uuid.uuid4().hex[:8]}"
    await cluster.create(NAMESPACE, {"metadata": {"name": name}})
    return name
