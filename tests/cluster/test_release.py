"""The chart on a cluster: real helm installs it, faults act, and nothing is left when it goes."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbed.cluster import Cluster
from testbed.images.build import TOOLS
from testbed.traces import difference
from tests.cluster.charts import CHART, NAMESPACE, helm

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

FAULT_SECONDS = 90.0
"""A first experiment after a start; 1 s on a quiet machine."""


@pytest.fixture
def release(loaded: Cluster) -> Iterator[Cluster]:
    """The chart, installed and ready."""
    install(loaded, "install")
    yield loaded
    if NAMESPACE in helm("list", "--all-namespaces", server=loaded):
        helm("uninstall", "squall", f"--namespace={NAMESPACE}", "--wait", server=loaded)


def install(cluster: Cluster, verb: str, *values: str) -> None:
    wait = ("--wait", "--timeout=4m")
    helm(verb, "squall", CHART, f"--namespace={NAMESPACE}", *wait, *values, server=cluster)


def test_a_fault_acts_and_uninstalling_takes_it_back(release: Cluster, namespace: str) -> None:
    start_target(release, namespace)
    untouched = traces(release, namespace)
    before_release = stray(release)
    create_delay(release, namespace)
    until(lambda: verdicts(release, namespace) == ["Confirmed"], lambda: shown(release, namespace))
    assert difference(untouched, traces(release, namespace))
    helm(
        "uninstall", "squall", f"--namespace={NAMESPACE}", "--wait", "--timeout=4m", server=release
    )
    assert difference(untouched, traces(release, namespace)) == []
    until(lambda: stray(release) == [], lambda: f"{stray(release)}, before {before_release}")


def test_an_upgrade_leaves_faults_alone(release: Cluster, namespace: str) -> None:
    start_target(release, namespace)
    create_delay(release, namespace)
    until(lambda: verdicts(release, namespace) == ["Confirmed"], lambda: shown(release, namespace))
    install(release, "upgrade", "--set=controller.podAnnotations.upgraded=yes")
    assert verdicts(release, namespace) == ["Confirmed"]


def start_target(cluster: Cluster, namespace: str) -> None:
    container = {"name": "web", "image": TOOLS}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": namespace, "labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    cluster.kubectl("create", "-f=-", stdin=json.dumps(pod))
    where = f"--namespace={namespace}"
    cluster.kubectl("wait", "pod/web", where, "--for=condition=Ready", "--timeout=60s")


def create_delay(cluster: Cluster, namespace: str) -> None:
    spec = {
        "action": "delay",
        "mode": "all",
        "selector": {"namespaces": [namespace], "labelSelectors": {"app": "web"}},
        "delay": {"latency": "100ms"},
        "duration": "10m",
    }
    api = {"apiVersion": "chaos-mesh.org/v1alpha1", "kind": "NetworkChaos"}
    experiment = {**api, "metadata": {"name": "delay", "namespace": namespace}, "spec": spec}
    cluster.kubectl("create", "-f=-", stdin=json.dumps(experiment))


def shown(cluster: Cluster, namespace: str) -> Any:
    where = f"--namespace={namespace}"
    return json.loads(cluster.kubectl("get", "networkchaos", "delay", where, "--output=json"))


def verdicts(cluster: Cluster, namespace: str) -> list[str]:
    experiment = shown(cluster, namespace).get("status", {}).get("experiment", {})
    records = experiment.get("containerRecords") or ()
    return [record.get("proof", {}).get("verdict", "") for record in records]


def traces(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Read what is in the target alone: other pods come and go with the release."""
    return {key: value for key, value in cluster.state().items() if f"{namespace}/web" in key}


def stray(cluster: Cluster) -> list[str]:
    """Name what Squall has left in the API, in its namespace and outside."""
    kinds = "all,lease,secret,configmap,serviceaccount,role,rolebinding,networkpolicy,pdb"
    inside = cluster.kubectl("get", kinds, f"--namespace={NAMESPACE}", "--output=name").split()
    names = cluster.kubectl("api-resources", "--namespaced=false", "--verbs=list", "-oname")
    outside = cluster.kubectl("get", ",".join(names.split()), "--output=name").split()
    kept = {"serviceaccount/default", "configmap/kube-root-ca.crt", f"namespace/{NAMESPACE}"}
    ours = [name for name in outside if "squall" in name or "chaos-mesh" in name]
    return sorted({*inside, *ours} - kept)


def until(holds: Callable[[], bool], complaint: Callable[[], Any]) -> None:
    deadline = time.monotonic() + FAULT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.25)
