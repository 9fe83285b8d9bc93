"""Helm releases of Squall on a cluster, experiments under them, and what they leave behind."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from testbed.cluster import Cluster
from testbed.cluster.nodes import PAUSE
from testbed.images.build import TOOLS
from tests.cluster.charts import CHART, NAMESPACE, helm

API = "chaos-mesh.org/v1alpha1"
PATIENCE_SECONDS = 90.0
"""For whatever takes a second on a quiet machine."""
_WAIT = ("--wait", "--timeout=4m")
_FLEETING = {"events", "events.events.k8s.io", "componentstatuses"}


def install(cluster: Cluster, *values: str, verb: str = "install", name: str = NAMESPACE) -> None:
    """Install or upgrade the release of a namespace, and wait until it is ready.

    Args:
        cluster: where.
        values: as `key=value` each.
        verb: install or upgrade.
        name: of the release and of its namespace.
    """
    sets = [f"--set={value}" for value in (f"controller.pauseImage={PAUSE}", *values)]
    helm(verb, name, CHART, f"--namespace={name}", *_WAIT, *sets, server=cluster)


def uninstall(cluster: Cluster, name: str = NAMESPACE) -> None:
    """Uninstall a release, as its users do: faults are taken back first."""
    helm("uninstall", name, f"--namespace={name}", *_WAIT, server=cluster)
    listed = ("get", "pods", f"--namespace={name}", "--output=name")  # helm waits for none
    wait_until(lambda: not cluster.kubectl(*listed), lambda: cluster.kubectl(*listed))


@contextmanager
def released(cluster: Cluster, *values: str, name: str = NAMESPACE) -> Iterator[None]:
    """Have a release for a while; it may be uninstalled meanwhile."""
    install(cluster, *values, name=name)
    try:
        yield
    finally:
        if name in helm("list", f"--namespace={name}", "--short", server=cluster).split():
            uninstall(cluster, name)


def everything(cluster: Cluster) -> set[str]:
    """Name every object of every kind, but for what the cluster itself makes and drops."""
    names = cluster.kubectl("api-resources", "--verbs=list", "-oname").split()
    columns = "-ocustom-columns=:.kind,:.metadata.namespace,:.metadata.name"
    wanted = ",".join(sorted(set(names) - _FLEETING))
    listed = cluster.kubectl("get", wanted, "-A", "--no-headers", columns)
    return {" ".join(line.split()) for line in listed.splitlines() if line.strip()}


def pods(cluster: Cluster, namespace: str, *names: str) -> None:
    """Start a pod on each node in turn, with the label `app: web`, and wait for them."""
    for number, name in enumerate(names):
        node = cluster.nodes[number % len(cluster.nodes)]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": "web"}},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "web", "image": TOOLS}],
            },
        }
        cluster.kubectl("create", "-f=-", stdin=json.dumps(pod))
    named = [f"pod/{name}" for name in names]
    where = f"--namespace={namespace}"
    cluster.kubectl("wait", *named, where, "--for=condition=Ready", "--timeout=90s")


def make_agents_folders(cluster: Cluster) -> None:
    """Make what stays of agents, empty: containers cannot remove what is mounted into them.

    Who was cut off when its installation went has left its journal there.
    """
    for node, folder in product(cluster.nodes, ("/run/squall", "/var/lib/squall")):
        place = cluster.on_host(node, Path(folder, f"{node}.{NAMESPACE}"))
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()


def delay(namespace: str, name: str = "slow", **spec: object) -> dict[str, Any]:
    """Write down a delay of all pods `app: web` of a namespace."""
    return {
        "apiVersion": API,
        "kind": "NetworkChaos",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "action": "delay",
            "mode": "all",
            "selector": {"namespaces": [namespace], "labelSelectors": {"app": "web"}},
            "delay": {"latency": "100ms"},
            **spec,
        },
    }


def create(cluster: Cluster, obj: object) -> str:
    """Create an object; raises `RuntimeError` with what the API server says."""
    return cluster.kubectl("create", "-f=-", stdin=json.dumps(obj))


def read(cluster: Cluster, namespace: str, name: str = "slow") -> Any:
    """Read an experiment."""
    shown = cluster.kubectl("get", "networkchaos", name, f"-n={namespace}", "--output=json")
    return json.loads(shown)


def records(cluster: Cluster, namespace: str, name: str = "slow") -> list[Any]:
    """Give the records of an experiment."""
    status = read(cluster, namespace, name).get("status", {})
    return status.get("experiment", {}).get("containerRecords") or []


def verdicts(cluster: Cluster, namespace: str, name: str = "slow") -> list[str]:
    """Say of each target what was found out."""
    found = records(cluster, namespace, name)
    return [(record.get("proof") or {}).get("verdict", "") for record in found]


def confirmed(cluster: Cluster, namespace: str, count: int, name: str = "slow") -> None:
    """Wait until the fault is felt by so many targets."""
    wait_until(
        lambda: verdicts(cluster, namespace, name) == ["Confirmed"] * count,
        lambda: read(cluster, namespace, name),
    )


def wait_until(holds: Callable[[], bool], complaint: Callable[[], object]) -> None:
    """Ask until it holds; fails with the complaint."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.25)


def says(words: str, source: Callable[[], str]) -> None:
    """Wait until a text holds these words."""
    wait_until(lambda: words in source(), source)
