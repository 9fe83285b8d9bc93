"""The API servers that the contract is held against."""

import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from squall.api.cluster import NAMESPACE, NODE_FAULT, Cluster
from squall.api.crd import definition
from squall.api.fake_cluster import FakeCluster
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.client import HttpCluster
from squall.kubernetes.embedded.loopback import Loopback
from squall.kubernetes.embedded.store import COMPACTED_AT_ONCE, Store
from testbed.apiserver import ApiServer, missing, running
from testbed.kubernetes.build import built_folder
from tests.kubernetes.embedded import KEPT_CHANGES, embedded_objects, embedded_server
from tests.kubernetes.objects import node_fault

SERVERS = ["embedded", pytest.param("real", marks=pytest.mark.kubernetes)]


@pytest.fixture(scope="session")
def in_memory() -> Iterator[Path]:
    """A folder on no disk: both servers wait for theirs at every write."""
    with tempfile.TemporaryDirectory(prefix="squall-contract-", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def real(in_memory: Path) -> Iterator[ApiServer]:
    if lacking := missing():
        pytest.fail(f"a real API server needs {', '.join(lacking)}")
    if not built_folder().is_dir():  # takes longer than any test may
        pytest.fail("kube-apiserver is not built yet; run `python -m testbed.kubernetes`")
    definitions = [definition(kind) for kind in served_kinds(kinds())]
    folder = in_memory / "real"
    folder.mkdir()
    with running(folder, definitions) as server:
        yield server


@pytest.fixture(scope="session")
def embedded(in_memory: Path) -> Iterator[ApiServer]:
    folder = in_memory / "embedded"
    folder.mkdir()
    with embedded_server(folder) as server:
        yield server


@pytest.fixture
def loopback() -> Iterator[Cluster]:
    store = Store(":memory:")
    yield Loopback(embedded_objects(store))
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
async def forgotten(request: pytest.FixtureRequest, http: HttpCluster, its_namespace: str) -> str:
    """A version of NodeFaults that the server has forgotten by now."""
    made = await http.create(NODE_FAULT, node_fault(its_namespace))
    if "embedded" in request.node.name:
        for number in range(KEPT_CHANGES + COMPACTED_AT_ONCE):
            labels = {"metadata": {"labels": {"number": str(number)}}}
            await http.patch(NODE_FAULT, its_namespace, "one", labels)
        return str(made["metadata"]["resourceVersion"])
    return "1"  # the API server began to remember changes of this kind when it learned of it


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
