"""PodChaos: pods are killed, stand still and come back as their owners wrote them."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from testbed.cluster.nodes import PAUSE
from testbed.cluster.waiting import until
from testbed.images.build import TOOLS
from tests.cluster.installed import Installed, pod

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SLEEP = {"image": TOOLS, "command": ["sleep", "9999"]}


def deployment(namespace: str, name: str, replicas: int) -> dict[str, Any]:
    """Describe a Deployment whose pods have the label `app: <name>`, spread over the nodes."""
    template = pod(namespace, name, "", "sleep", "9999")
    del template["spec"]["nodeName"]
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
        },
    }


def rolled_out(installed: Installed, namespace: str, name: str) -> None:
    installed.kubectl("rollout", "status", f"deployment/{name}", f"-n={namespace}", "--timeout=90s")


def uids(installed: Installed, namespace: str) -> set[str]:
    listed = json.loads(installed.kubectl("get", "pods", f"-n={namespace}", "--output=json"))
    return {one["metadata"]["uid"] for one in listed["items"]}


def written(installed: Installed, namespace: str, name: str) -> Mapping[str, Any]:
    """Read what the owner of a pod wrote of it."""
    read = installed.read("pod", name, namespace)
    meta = read["metadata"]
    return {
        "spec": read["spec"],
        "annotations": meta.get("annotations"),
        "labels": meta.get("labels"),
    }


def states(installed: Installed, namespace: str, name: str) -> dict[str, Any]:
    """Read the status of each container, by its name."""
    status = installed.read("pod", name, namespace)["status"]
    listed = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
    return {one["name"]: one for one in listed}


def test_a_killed_pod_is_replaced_by_its_deployment(installed: Installed, namespace: str) -> None:
    installed.apply(deployment(namespace, "client", 2))
    rolled_out(installed, namespace, "client")
    before = uids(installed, namespace)
    spec = {"action": "pod-kill", "mode": "one"}
    with installed.experiment("PodChaos", namespace, spec) as experiment:
        experiment.wait("AllInjected")
        until("another pod", lambda: len(before - uids(installed, namespace)) == 1, 60)
        rolled_out(installed, namespace, "client")
        assert len(uids(installed, namespace) & before) == 1


def test_a_pod_stands_still_and_comes_back_as_it_was(installed: Installed, namespace: str) -> None:
    target = pod(
        namespace,
        "client",
        "node2",
        containers=[{"name": "one", **SLEEP}, {"name": "two", **SLEEP}],
        initContainers=[{"name": "side", "restartPolicy": "Always", **SLEEP}],
    )
    installed.pods(namespace, target)
    before = written(installed, namespace, "client")
    with installed.experiment("PodChaos", namespace, {"action": "pod-failure"}) as experiment:
        experiment.confirmed()
        spec = installed.read("pod", "client", namespace)["spec"]
        images = [c["image"] for c in (*spec["initContainers"], *spec["containers"])]
        assert images == [PAUSE] * 3
        assert "sleep" not in commands(installed, namespace, "client")
    until("what was written", lambda: written(installed, namespace, "client") == before, 60)
    installed.ready(namespace, "client")
    until("its programs", lambda: commands(installed, namespace, "client").count("sleep") == 3, 60)


def commands(installed: Installed, namespace: str, name: str) -> list[str]:
    """List what runs in a pod's containers."""
    found = installed.state(namespace)
    return [
        line
        for what, text in found.items()
        if what.startswith(f"{namespace}/{name}/") and what.endswith(" processes")
        for line in text.splitlines()
    ]


def test_one_container_is_killed_and_starts_again(installed: Installed, namespace: str) -> None:
    both = [{"name": "one", **SLEEP}, {"name": "two", **SLEEP}]
    installed.pods(namespace, pod(namespace, "client", "node1", containers=both))
    before = states(installed, namespace, "client")
    spec = {"action": "container-kill", "containerNames": ["two"]}
    with installed.experiment("PodChaos", namespace, spec) as experiment:
        experiment.wait("AllInjected")
        until("its restart", lambda: restarts(installed, namespace) == {"one": 0, "two": 1}, 90)
        installed.ready(namespace, "client")
        after = states(installed, namespace, "client")
        assert after["one"]["containerID"] == before["one"]["containerID"]
        assert after["two"]["lastState"]["terminated"]["exitCode"] == 137  # SIGKILL


def restarts(installed: Installed, namespace: str) -> dict[str, int]:
    found = states(installed, namespace, "client")
    return {name: state["restartCount"] for name, state in found.items()}


def test_a_completed_pod_is_passed_over_with_a_reason(installed: Installed, namespace: str) -> None:
    installed.apply(pod(namespace, "client", "node1", "true", restartPolicy="Never"))
    finished = ("--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
    installed.kubectl("wait", "pod/client", f"-n={namespace}", *finished)
    with installed.experiment("PodChaos", namespace, {"action": "pod-kill"}) as experiment:
        experiment.wait("Selected=False")
        [selected] = [
            c for c in experiment.read()["status"]["conditions"] if c["type"] == "Selected"
        ]
        assert "is completed (Succeeded)" in selected["reason"]
