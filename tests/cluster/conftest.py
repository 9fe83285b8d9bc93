"""A cluster of two nodes for all tests of this folder, and a namespace of one's own in it."""

import os
import secrets
from collections.abc import Iterator

import pytest

from testbed.cluster import Cluster, missing, running
from testbed.images.build import missing as missing_for_images
from testbed.images.build import squall_image, tools_image
from tests.cluster.charts import NAMESPACE
from tests.cluster.installed import Installed, Usual


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let those that share an installation follow each other, so that it is made once."""
    sharing = {item.path for item in items if "usual" in _fixtures(item)}
    alone = {item.path for item in items if "loaded" in _fixtures(item)}
    items.sort(key=lambda item: (item.path in sharing, item.path in alone))


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


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
def usual(cluster: Cluster) -> Iterator[Usual]:
    """The project's images on the cluster, a namespace to install into, and what is installed."""
    if lacking := missing_for_images():
        pytest.fail(f"images need {', '.join(lacking)}")
    cluster.load(squall_image(), tools_image())
    cluster.make_namespace(NAMESPACE)
    usual = Usual(cluster)
    yield usual
    usual.leave()


@pytest.fixture(scope="module")
def loaded(cluster: Cluster, usual: Usual) -> Cluster:
    """The same cluster with the project's images, and nothing installed."""
    usual.leave()
    return cluster


@pytest.fixture(scope="module")
def installed(usual: Usual) -> Installed:
    """Squall, installed by helm and ready; other tests use it, too: leave it as it was."""
    return usual.have()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """Have one of the test's own, in which pods can be made at once."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.make_namespace(name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
