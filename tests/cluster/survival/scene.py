"""Faults of all rooms on pods of both nodes, and what was there before them."""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from testbed.cluster import Cluster
from testbed.cluster.layout import RUN
from testbed.cluster.processes import in_cgroups
from testbed.cluster.waiting import until
from testbed.images.build import TOOLS
from testbed.traces import Namespace, difference

LEASE_SECONDS = 10
PAUSE = "registry.local/pause:3.10"
DATA = "/data"
"""Where every pod has a volume of its own."""
PATIENCE = 120.0
"""Seconds that anything without a promise of its own may take on a machine that is busy."""
GONE_WITHIN = 30.0
"""Seconds in which a delete has to be finished, whatever happened."""
CUT_OFF_WITHIN = LEASE_SECONDS + 10
"""Seconds after which a deleted experiment goes although a node is silent."""

Fault = tuple[str, dict[str, Any]]
_OUR_FILES = " - fuse.squall "


def _of(app: str) -> dict[str, Any]:
    return {"mode": "all", "selector": {"labelSelectors": {"app": app}}}


DELAY: Fault = ("NetworkChaos", {"action": "delay", "delay": {"latency": "60ms"}, **_of("web")})
PARTITION: Fault = (
    "NetworkChaos",
    {"action": "partition", "direction": "both", "target": _of("down"), **_of("web")},
)
HTTP: Fault = ("HTTPChaos", {"target": "Request", "port": 80, "delay": "10ms", **_of("web")})
NAMES: Fault = ("DNSChaos", {"action": "error", "patterns": ["*.invalid"], **_of("web")})
FILES: Fault = (
    "IOChaos",
    {"action": "latency", "delay": "10ms", "volumePath": DATA, **_of("web")},
)
STRESS: Fault = ("StressChaos", {"stressors": {"cpu": {"workers": 1, "load": 1}}, **_of("web")})
FAILURE: Fault = ("PodChaos", {"action": "pod-failure", **_of("down")})

ON_NODES: Mapping[str, Fault] = {
    "delay": DELAY,
    "partition": PARTITION,
    "stress": STRESS,
    "http": HTTP,
    "names": NAMES,
    "files": FILES,
}
"""What agents do: it goes by itself when nobody renews the lease."""
ALL: Mapping[str, Fault] = {**ON_NODES, "failure": FAILURE}
PODS = {f"{app}-{node}": (app, node) for node in ("node1", "node2") for app in ("web", "down")}


class Scene:
    """Two pods on each node, in a namespace of their own, and the experiments on them."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self._live: dict[str, str] = {}
        for name, (app, node) in PODS.items():
            self.start(name, app, node)
        self.wait("pod", "--all", "condition=Ready")
        self._networks = {
            name: Namespace(cluster.processes_of(namespace, name, "main")[0]) for name in PODS
        }
        """Held open: they can be read when their pods are gone, and when nobody knows pods."""
        self.before = self.state()

    def close(self) -> None:
        """Let go of what is held open."""
        for network in self._networks.values():
            network.__exit__()

    def start(self, name: str, app: str, node: str | None = None) -> None:
        """Start a pod that serves, without a command of its own: the pause image has none."""
        volume = {"name": "data", "mountPath": DATA}
        container = {"name": "main", "image": TOOLS, "volumeMounts": [volume]}
        spec: dict[str, Any] = {
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}],
        }
        if node:
            spec["nodeName"] = node
        metadata = {"name": name, "labels": {"app": app}}
        self.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def create(self, obj: Mapping[str, Any]) -> None:
        """Create an object in the namespace."""
        self.kubectl("create", "-f=-", stdin=json.dumps(obj))

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl in the namespace."""
        return self.cluster.kubectl(*arguments, f"--namespace={self.namespace}", stdin=stdin)

    def wait(self, kind: str, name: str, what: str, seconds: float = PATIENCE) -> None:
        """Wait by kubectl."""
        self.kubectl("wait", kind, name, f"--for={what}", f"--timeout={seconds:.0f}s")

    def evict(self, *pods: str) -> None:
        """Have pods go as a drain would, and wait until they are gone."""
        for pod in pods:
            metadata = {"name": pod, "namespace": self.namespace}
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
            self.cluster.kubectl("create", f"--raw={path}", "-f=-", stdin=json.dumps(eviction))
        for pod in pods:
            self.wait("pod", pod, "delete", GONE_WITHIN)

    def begin(self, faults: Mapping[str, Fault] = ALL, **more: Any) -> None:
        """Create experiments; `more` goes into the spec of each."""
        api = {"apiVersion": "chaos-mesh.org/v1alpha1"}
        self.create(
            {
                "apiVersion": "v1",
                "kind": "List",
                "items": [
                    {**api, "kind": kind, "metadata": {"name": name}, "spec": {**spec, **more}}
                    for name, (kind, spec) in faults.items()
                ],
            }
        )
        self._live |= {name: kind.lower() for name, (kind, _) in faults.items()}

    def inject(self, faults: Mapping[str, Fault] = ALL, **more: Any) -> None:
        """Create experiments, and wait until all say that they act, and do."""
        self.begin(faults, **more)
        named = [f"{self._live[name]}/{name}" for name in faults]
        act = ("--for=condition=AllInjected", f"--timeout={PATIENCE:.0f}s")
        self.kubectl("wait", *named, *act)
        if FAILURE in faults.values():  # the kubelet needs a moment more to replace containers
            until("pods to stand still", self._stand_still, PATIENCE)
        assert self.left(), "nothing can be seen of faults that are said to act"

    def _stand_still(self) -> bool:
        path = "--output=jsonpath={.items[*].status.containerStatuses[*].image}"
        return set(self.kubectl("get", "pods", "--selector=app=down", path).split()) == {PAUSE}

    def experiment(self, name: str) -> Any:
        """Read one."""
        return json.loads(self.kubectl("get", self._live[name], name, "--output=json"))

    def condition(self, name: str, condition: str) -> tuple[bool, str]:
        """Read a condition: its status and its reason."""
        return _condition(self.experiment(name), condition)

    def injected(self, names: Sequence[str] = tuple(ALL)) -> bool:
        """Say whether all of these say that they act."""
        return set(names) <= self.acting()

    def acting(self) -> set[str]:
        """Name the experiments that say that they act."""
        kinds = ",".join(sorted(set(self._live.values())))
        listed = json.loads(self.kubectl("get", kinds, "--output=json"))["items"]
        return {one["metadata"]["name"] for one in listed if _condition(one, "AllInjected")[0]}

    def verdicts(self, name: str) -> set[str]:
        """Read the verdicts of all records."""
        experiment = self.experiment(name).get("status", {}).get("experiment", {})
        records = experiment.get("containerRecords") or ()
        return {record.get("proof", {}).get("verdict", "") for record in records}

    def state(self) -> Mapping[str, str]:
        """Read all that faults may leave: in the kernel, in processes, in the pods' objects."""
        read = dict(self.cluster.state(self.namespace))
        for node in self.cluster.nodes:  # an agent's own notes; they are compared by uninstalling
            del read[f"{node} files"]
        read["holders"] = "\n".join(sorted(holders(self.cluster)))
        for pod in json.loads(self.kubectl("get", "pods", "--output=json"))["items"]:
            read[f"{pod['metadata']['name']} object"] = _intent(pod)
        return read

    def left(self) -> str:
        """Say what is not as it was before; empty when everything is."""
        return self.changed(self.before)

    def changed(self, before: Mapping[str, str]) -> str:
        """Say what is not as it was then; empty when everything is."""
        try:
            return difference(before, self.state())
        except (OSError, CalledProcessError) as early:  # a container ended while it was read
            return f"something is about to change: {early}"

    def in_kernel(self, node: str) -> str:
        """Say which faults act on a node's pods, also those that are gone; asks no API."""
        found: list[str] = []
        for name, network in self._networks.items():
            if PODS[name][1] == node:
                try:
                    read = "\n".join(network.traces().values())
                except CalledProcessError:  # a device that was there just now
                    read = "squall_is_about_to_change_something"
                found += [f"{name}: {mark}" for mark in re.findall(r"squall\S*", read)]
        for process in in_cgroups(self.cluster.node(node).cgroup):
            with suppress(OSError):
                called = Path(f"/proc/{process.pid}/comm").read_text().strip()
                found += [called] if called.startswith("stress-ng") else []
                mounted = Path(f"/proc/{process.pid}/mountinfo").read_text()
                found += [f"{called}: its files"] if _OUR_FILES in mounted else []
        # Where connections are led is in no listing of a namespace; it ends with its holder.
        found += [one for one in holders(self.cluster, node) if not one.endswith(" watch")]
        return "\n".join(found)

    def tells_truly(self) -> bool:
        """Say whether agents' faults act where experiments say so, and nowhere else."""
        act = all(map(self.in_kernel, self.cluster.nodes))
        return self.acting() & ON_NODES.keys() == (self._live.keys() & ON_NODES if act else set())

    def outlives(self, silence: float, acting: Mapping[str, str]) -> None:
        """Find everything as it was, unless somebody was silent for longer than a lease.

        Then nodes may have healed themselves, as they should, and it has to be told.
        """
        if silence > LEASE_SECONDS:
            until("the truth", self.tells_truly, PATIENCE)
            return
        # New watchers are there before the old ones have left.
        until("everything to be as before", lambda: not self.changed(acting), PATIENCE)
        until("all to say so", lambda: self.injected(tuple(self._live)), PATIENCE)
        for name in self._live:
            assert "Interrupted" not in self.verdicts(name), name

    def leaves_nothing(self, within: float = PATIENCE) -> None:
        """Wait until nothing is left but what became of the pods."""
        until("NodeFaults to go", lambda: not self.node_faults(), GONE_WITHIN)
        kept = {
            key: value
            for key, value in self.before.items()
            if key == "holders" or key.split()[0] in self.cluster.nodes
        }

        def gone() -> bool:
            now = self.state()
            left = [difference(kept, {key: now[key] for key in kept})]
            left += [f"{node}:\n{self.in_kernel(node)}" for node in self.cluster.nodes]
            if any(text and not text.endswith(":\n") for text in left):
                raise RuntimeError("\n".join(left))
            return True

        until("everything to be gone", gone, within)

    def heals(self, within: float = PATIENCE) -> float:
        """Wait until nothing is left; returns after how many seconds that was seen."""
        began = time.monotonic()
        try:
            until("healing", lambda: not self.left(), within)
        except RuntimeError:
            raise AssertionError(f"left after {within:.0f} s:\n{self.left()}") from None
        return time.monotonic() - began

    def delete(self, within: float = GONE_WITHIN) -> float:
        """Delete all experiments at once; returns how many seconds kubectl took for all."""
        began = time.monotonic()
        named = [f"{kind}/{name}" for name, kind in self._live.items()]
        if named:
            self.kubectl("delete", *named, "--ignore-not-found", f"--timeout={within:.0f}s")
        self._live.clear()
        return time.monotonic() - began

    def ends(self) -> None:
        """Delete everything, and find everything as it was and no object stuck."""
        self.delete()
        self.heals()
        until("NodeFaults to go", lambda: not self.node_faults(), GONE_WITHIN)

    def node_faults(self) -> list[str]:
        """Name the NodeFaults of this namespace's experiments."""
        listed = self.cluster.kubectl("get", "nodefaults", "-n=squall", "--output=json")
        return [
            one["metadata"]["name"]
            for one in json.loads(listed)["items"]
            if one["spec"]["experiment"]["namespace"] == self.namespace
        ]


def _condition(experiment: Any, condition: str) -> tuple[bool, str]:
    for one in experiment.get("status", {}).get("conditions", ()):
        if one["type"] == condition:
            return one["status"] == "True", one.get("reason", "")
    return False, "no such condition"


def holders(cluster: Cluster, node: str = "") -> Iterator[str]:
    """List what runs beside the agents of a cluster or a node, in cgroups that outlive them."""
    place = f"{RUN / cluster.name}/{node and f'{node}/'}"
    for group in Path("/sys/fs/cgroup/pids").glob("squall-*-agent"):
        for process in in_cgroups(group.name):
            try:
                mounted = Path(f"/proc/{process.pid}/mountinfo").read_text()
                called = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if place in mounted:
                yield b" ".join(called[:2]).decode()


def _intent(pod: Mapping[str, Any]) -> str:
    metadata = pod["metadata"]
    kept = {key: metadata.get(key) for key in ("labels", "annotations", "finalizers")}
    return json.dumps({**kept, "spec": pod["spec"]}, sort_keys=True)
