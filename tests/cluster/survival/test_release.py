"""Squall is upgraded or removed while faults act."""

import json
from collections.abc import Iterator

import pytest

from testbed.cluster import Cluster
from testbed.cluster.waiting import until
from testbed.traces import difference
from tests.cluster.charts import NAMESPACE
from tests.cluster.releases import wait_until
from tests.cluster.survival.blows import settle
from tests.cluster.survival.release import install, uninstall
from tests.cluster.survival.scene import PATIENCE, Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def test_an_upgrade_leaves_faults_or_brings_them_back(scene: Scene) -> None:
    scene.inject()
    values = ("controller.podAnnotations.upgraded=yes", "agent.podAnnotations.upgraded=yes")
    install(scene.cluster, *values)
    until("faults to be back", lambda: scene.injected() and acts(scene), PATIENCE)


def acts(scene: Scene) -> bool:
    return all(map(scene.in_kernel, scene.cluster.nodes))


@pytest.fixture
def removable(installed: Cluster, namespace: str) -> Iterator[Scene]:
    """Pods, and Squall, which is there again afterwards."""
    settle(installed)
    scene = Scene(installed, namespace)
    yield scene
    scene.close()
    install(installed)


@pytest.mark.core
def test_nothing_is_left_when_it_is_removed_while_faults_act(removable: Scene) -> None:
    cluster = removable.cluster
    removable.inject()
    uninstall(cluster)
    # Helm waits for no pod.
    wait_until(lambda: not ours(cluster), lambda: ours(cluster))
    now = removable.state()
    assert "watch" not in now.pop("holders")
    assert not difference({key: v for key, v in removable.before.items() if key in now}, now)


def ours(cluster: Cluster) -> list[str]:
    """Name what a release may have left in the API; its namespace stays, as helm has it."""
    kinds = "all,lease,secret,configmap,serviceaccount,role,rolebinding,networkpolicy,pdb"
    inside = cluster.kubectl("get", kinds, f"--namespace={NAMESPACE}", "--output=name").split()
    names = cluster.kubectl("api-resources", "--namespaced=false", "--verbs=list", "--output=name")
    outside = cluster.kubectl("get", ",".join(names.split()), "--output=json")
    kept = {"serviceaccount/default", "configmap/kube-root-ca.crt"}
    found = [
        f"{one['kind']}/{one['metadata']['name']}"
        for one in json.loads(outside)["items"]
        if "squall" in one["metadata"]["name"] or "chaos-mesh" in one["metadata"]["name"]
    ]
    return sorted({*inside, *found} - kept - {f"Namespace/{NAMESPACE}"})
