"""The chart on a cluster: real helm installs it, changes it, and nothing is left when it goes."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.cluster import Cluster
from testbed.cluster.namespaces import run
from testbed.cluster.requests import Request
from testbed.cluster.waiting import until
from testbed.images.build import SQUALL
from testbed.traces import difference
from tests.cluster.charts import CHART, NAMESPACE, helm
from tests.cluster.releases import (
    confirmed,
    create,
    delay,
    everything,
    install,
    make_agents_folders,
    pods,
    released,
    uninstall,
    verdicts,
    wait_until,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CHANGED = ("policy.mostPercent=50", "policy.protectedNamespaces={kube-system}")
TWO = ("web-1", "web-2")
"""One on each node."""


@pytest.fixture
def other_tag(loaded: Cluster) -> Iterator[str]:
    """The same image under another tag, as the next version would be."""
    for node in map(loaded.node, loaded.nodes):
        control = ("ctr", f"--address={node.socket}", "--namespace=k8s.io", "images", "tag")
        run(*control, "--force", f"docker.io/library/{SQUALL}", "docker.io/library/squall:next")
    yield "next"
    for node in map(loaded.node, loaded.nodes):
        control = ("ctr", f"--address={node.socket}", "--namespace=k8s.io", "images", "rm")
        run(*control, "docker.io/library/squall:next")


def test_uninstalling_takes_live_faults_back_and_leaves_nothing(
    loaded: Cluster, namespace: str
) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART)
    pods(loaded, namespace, *TWO)
    make_agents_folders(loaded)
    untouched, objects = loaded.state(namespace), everything(loaded)
    asked = loaded.requests()
    with released(loaded):
        create(loaded, delay(namespace))
        confirmed(loaded, namespace, 2)
        touched = difference(untouched, loaded.state(namespace))
        assert all(f"{namespace}/{pod}" in touched for pod in TWO)
        uninstall(loaded)
    assert difference(untouched, loaded.state(namespace)) == ""
    wait_until(lambda: everything(loaded) - objects == set(), lambda: everything(loaded) - objects)
    hook = of_account(loaded.requests() - asked, "squall-uninstall")
    assert {("create", "halts.squall.dev"), ("delete", "networkchaos.chaos-mesh.org")} <= hook


def test_faults_stay_through_an_upgrade_and_a_rollback(
    loaded: Cluster, namespace: str, other_tag: str
) -> None:
    pods(loaded, namespace, *TWO)
    with released(loaded):
        create(loaded, delay(namespace))
        confirmed(loaded, namespace, 2)
        trusted = bundles(loaded)
        install(loaded, f"image.tag={other_tag}", *CHANGED, verb="upgrade")
        assert images(loaded) == {f"squall:{other_tag}"}
        assert bundles(loaded) == trusted
        until("the end of old replicas", lambda: refused(loaded, delay(namespace, "too-much")))
        taken_off = {"mode": "fixed", "value": "1", "selector": {"namespaces": [NAMESPACE]}}
        create(loaded, delay(namespace, "own", **taken_off))
        confirmed(loaded, namespace, 1, "own")
        loaded.kubectl("delete", "networkchaos", "own", f"-n={namespace}", "--timeout=60s")
        wait_until(
            lambda: verdicts(loaded, namespace) == ["Confirmed"] * 2,
            lambda: verdicts(loaded, namespace),
        )
        helm("rollback", NAMESPACE, "1", f"--namespace={NAMESPACE}", "--wait", server=loaded)
        assert images(loaded) == {SQUALL}
        assert bundles(loaded) == trusted
        until("the end of strict replicas", lambda: not refused(loaded, delay(namespace, "again")))
        create(loaded, delay(namespace, "again", direction="to"))
        confirmed(loaded, namespace, 2)


def refused(cluster: Cluster, experiment: dict[str, Any]) -> bool:
    """Is it refused by its share? Replicas that leave still allow what they were told to."""
    try:
        create(cluster, experiment)
    except RuntimeError as refusal:
        return "this installation allows 50 %" in str(refusal)
    name, namespace = (experiment["metadata"][key] for key in ("name", "namespace"))
    cluster.kubectl("delete", "networkchaos", name, f"-n={namespace}", "--timeout=60s")
    return False


def of_account(asked: Counter[Request], account: str) -> set[tuple[str, str]]:
    user = f"system:serviceaccount:{NAMESPACE}:{account}"
    return {(request.verb, request.resource) for request in asked if request.user == user}


def images(cluster: Cluster) -> set[str]:
    """Name the images of what runs."""
    shown = cluster.kubectl("get", "pods", f"--namespace={NAMESPACE}", "--output=json")
    return {
        container["image"]
        for pod in json.loads(shown)["items"]
        if "deletionTimestamp" not in pod["metadata"]
        for container in pod["spec"]["containers"]
    }


def bundles(cluster: Cluster) -> set[str]:
    """Give the authorities by which the API server trusts the webhook."""
    kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations"
    listed = json.loads(cluster.kubectl("get", kinds, "--output=json"))["items"]
    return {hook["clientConfig"].get("caBundle", "") for one in listed for hook in one["webhooks"]}
