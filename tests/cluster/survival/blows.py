"""What is done to the parts of Squall on a cluster."""

import json
import signal
import time
from collections.abc import Mapping
from typing import Any

from testbed.cluster import Cluster
from testbed.cluster.processes import Process
from testbed.cluster.waiting import until
from tests.cluster.charts import NAMESPACE
from tests.cluster.survival.scene import PATIENCE

_IN = f"--namespace={NAMESPACE}"


def pods(cluster: Cluster, component: str) -> Mapping[str, Any]:
    """Read the pods of a component that are not about to go, by name."""
    label = f"--selector=app.kubernetes.io/component={component}"
    listed = json.loads(cluster.kubectl("get", "pods", _IN, label, "--output=json"))["items"]
    return {
        pod["metadata"]["name"]: pod for pod in listed if "deletionTimestamp" not in pod["metadata"]
    }


def agent(cluster: Cluster, node: str) -> str:
    """Name the agent's pod on a node."""
    [name] = [
        name for name, pod in pods(cluster, "agent").items() if pod["spec"]["nodeName"] == node
    ]
    return name


def leader(cluster: Cluster) -> str:
    """Name the pod of the controller that holds the lease; empty while nobody does."""
    return cluster.kubectl(
        "get", "lease", "squall-controller", _IN, "--output=jsonpath={.spec.holderIdentity}"
    )


def process(cluster: Cluster, pod: str) -> Process:
    """Find the first process of a pod of ours, once it runs."""
    component = "agent" if pod.startswith("squall-agent") else "controller"
    found: list[Process] = []

    def runs() -> bool:
        pids = cluster.processes_of(NAMESPACE, pod, component)
        found.extend(filter(None, map(Process.of, pids[:1])))
        return bool(found)

    until(f"a process in {pod}", runs, PATIENCE)
    return found[0]


def kill(cluster: Cluster, *pods: str) -> None:
    """SIGKILL the processes of pods of ours, all at once."""
    victims = [process(cluster, pod) for pod in pods]
    for victim in victims:
        victim.send(signal.SIGKILL)
    for victim in victims:
        if not victim.wait(10.0):
            raise RuntimeError("a process outlives SIGKILL")


def kill_agents(cluster: Cluster) -> float:
    """Kill the agents of all nodes, and wait until they are ready again, for the first time.

    Returns after how many seconds they were: when that is longer than a lease, their watchers may
    have been quicker.
    """
    began = time.monotonic()
    agents = [agent(cluster, node) for node in cluster.nodes]
    kill(cluster, *agents)
    for what in ("jsonpath={.status.containerStatuses[0].restartCount}=1", "condition=Ready"):
        named = [f"pod/{name}" for name in agents]
        cluster.kubectl("wait", *named, _IN, f"--for={what}", f"--timeout={PATIENCE:.0f}s")
    return time.monotonic() - began


def takeover(cluster: Cluster, old: str) -> float:
    """Wait until another controller leads; returns for how many seconds."""
    began = time.monotonic()
    (other,) = set(pods(cluster, "controller")) - {old}
    named = f"--for=jsonpath={{.spec.holderIdentity}}={other}"
    seconds = f"--timeout={PATIENCE:.0f}s"
    cluster.kubectl("wait", "lease/squall-controller", _IN, named, seconds)
    return time.monotonic() - began


def rob(cluster: Cluster) -> None:
    """Give the lease to the controller that does not lead, so that two take themselves for it."""
    robbed = leader(cluster)
    other = next(name for name in pods(cluster, "controller") if name != robbed)
    patch = json.dumps({"spec": {"holderIdentity": other}})
    lease = ("lease", "squall-controller", _IN, "--type=merge", f"--patch={patch}")
    cluster.kubectl("patch", *lease)
    until("another to lead", lambda: leader(cluster) == other, PATIENCE)


def replace(cluster: Cluster, *pods: str) -> None:
    """Delete pods of ours; others come at once."""
    cluster.kubectl("delete", "pod", *pods, _IN, f"--timeout={PATIENCE:.0f}s")


def scale(cluster: Cluster, replicas: int) -> None:
    """Have so many controllers; without any, their processes are gone when this returns."""
    cluster.kubectl("scale", "deployment/squall-controller", _IN, f"--replicas={replicas}")
    if not replicas:
        until("controllers to go", lambda: not _left(cluster), PATIENCE)


def settle(cluster: Cluster) -> None:
    """Have every part of Squall run, and none of them wait before it is started again."""
    until("the nodes", lambda: _ready(cluster) == len(cluster.nodes), PATIENCE)
    cluster.kubectl("delete", "halts", "--all")
    waiting = [
        name
        for component in ("agent", "controller")
        for name, pod in pods(cluster, component).items()
        if any(one["restartCount"] for one in pod["status"].get("containerStatuses", ()))
    ]
    if waiting:
        replace(cluster, *waiting)
    rolled_out(cluster)


def rolled_out(cluster: Cluster) -> None:
    """Wait until agents and controllers are all there, and one of these leads."""
    for what in ("daemonset/squall-agent", "deployment/squall-controller"):
        cluster.kubectl("rollout", "status", what, _IN, f"--timeout={PATIENCE:.0f}s")
    until("a leader", lambda: leader(cluster) in pods(cluster, "controller"), PATIENCE)


def _left(cluster: Cluster) -> str:
    label = "--selector=app.kubernetes.io/component=controller"
    return cluster.kubectl("get", "pods", _IN, label, "--output=name")


def _ready(cluster: Cluster) -> int:
    path = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    return cluster.kubectl("get", "nodes", f"--output={path}").split().count("True")
