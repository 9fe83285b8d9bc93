"""The API servers that the contract is held against."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from testbed.apiserver import ApiServer, missing, running

from squall.api.cluster import NAMESPACE, Cluster
from squall.api.crd import definition
from squall.api.fake_cluster import FakeCluster
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.client import HttpCluster


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    if lacking := missing():
        pytest.fail(f"a real API server needs {', '.join(lacking)}")
    definitions = [definition(kind) for kind in served_kinds(kinds())]
    with running(tmp_path_factory.mktemp("apiserver"), definitions) as server:
        yield server


@pytest.fixture(params=["fake", "real"])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            yield FakeCluster()
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
