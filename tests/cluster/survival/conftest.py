"""A cluster that may be broken, Squall on it with a short lease, and pods to hit."""

import secrets
from collections.abc import Iterator

import pytest

from testbed.cluster import Cluster, running
from testbed.images.build import missing, squall_image, tools_image
from tests.cluster.survival.blows import settle
from tests.cluster.survival.release import install
from tests.cluster.survival.scene import Scene


@pytest.fixture(scope="session")
def cluster(machine: None) -> Iterator[Cluster]:
    """Two nodes that no other tests see: what is broken here would make them wait."""
    if lacking := missing():
        pytest.fail(f"images need {', '.join(lacking)}")
    with running(f"holds-{secrets.token_hex(3)}", size=2) as cluster:
        cluster.load(squall_image(), tools_image())
        yield cluster


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """Squall, installed as users do; it goes with the cluster."""
    install(cluster)
    return cluster


def _pods(installed: Cluster) -> Iterator[Scene]:
    """Pods on both nodes, untouched, in a namespace that goes with them; it may be gone before."""
    settle(installed)
    name = f"holds-{secrets.token_hex(3)}"
    installed.make_namespace(name)
    scene = Scene(installed, name)
    yield scene
    scene.close()
    installed.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


stage = pytest.fixture(_pods, scope="module", name="stage")
"""Pods for tests that leave them there."""
doomed = pytest.fixture(_pods, name="doomed")
"""Pods that this test may end."""


@pytest.fixture
def scene(stage: Scene) -> Iterator[Scene]:
    """The same pods, with everything there that should be; afterwards, too."""
    settle(stage.cluster)
    stage.heals()
    yield stage
    stage.ends()
