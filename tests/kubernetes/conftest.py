"""The API servers that the contract is held against."""

import uuid
from collections.abc import AsyncIterator, Iterator
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

SERVERS = ["real"]


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


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> ApiServer:
    """Every server that speaks HTTP, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture
async def its_namespace(http: HttpCluster) -> str:
    """One of the test's own, on that server."""
    return await new_namespace(http)


@pytest.fixture
async def http(server: ApiServer) -> AsyncIterator[HttpCluster]:
    async with HttpCluster.from_kubeconfig(server.kubeconfig) as cluster:
        yield cluster


@pytest.fixture(params=["fake", "loopback", *SERVERS])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """Everything that stands behind the port, one after the other."""
    if request.param == "fake":
        yield FakeCluster()
    elif request.param == "loopback":
        yield request.getfixturevalue("loopback")
    else:
        server: ApiServer = request.getfixturevalue(request.param)
        async with HttpCluster.from_kubeconfig(server.kubeconfig) as cluster:
            yield cluster


@pytest.fixture
def forgotten() -> str:
    """A version that the server has forgotten by now."""
    return "1"


@pytest.fixture
async def namespace(cluster: Cluster) -> str:
    """One of the test's own."""
    return await new_namespace(cluster)


@pytest.fixture
async def other(cluster: Cluster) -> str:
    """A second one."""
    return await new_namespace(cluster)


async def new_namespace(cluster: Cluster) -> str:
    name = f"contract-{uuid.uuid4().hex[:8]}"
    await cluster.create(NAMESPACE, {"metadata": {"name": name}})
    return name
