"""A cluster of two nodes for all tests of this folder, and a namespace of one's own in it."""

import os
import secrets
from collections.abc import Iterator

import pytest

from testbed.cluster import Cluster, missing, running
from testbed.images.build import missing as missing_for_images
from testbed.images.build import squall_image, tools_image
from tests.cluster.charts import NAMESPACE
from tests.cluster.installed import Installed, installation


@pytest.fixture(scope="session")
def machine() -> None:
    """Skip where no cluster can be had; `make test-cluster` fails instead."""
    if lacking := missing():
        complaint = f"a cluster needs {', '.join(lacking)}"
        if os.environ.get("SQUALL_TEST_CLUSTER") == "required":
            pytest.fail(complaint)
        pytest.skip(complaint)


@pytest.fixture(scope="session")
def cluster(machine: None) -> Iterator[Cluster]:
    """Two nodes; other tests use them, too: leave them as they were."""
    with running(f"tests-{secrets.token_hex(3)}", size=2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def loaded(cluster: Cluster) -> Cluster:
    """The same cluster with the project's images, and a namespace to install into."""
    if lacking := missing_for_images():
        pytest.fail(f"images need {', '.join(lacking)}")
    cluster.load(squall_image(), tools_image())
    cluster.make_namespace(NAMESPACE)
    return cluster


@pytest.fixture(scope="module")
def installed(loaded: Cluster) -> Iterator[Installed]:
    """Squall, installed by helm and ready; removed after the module, as one cluster has one."""
    with installation(loaded) as installed:
        yield installed


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """Have one of the test's own, in which pods can be made at once."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.make_namespace(name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
