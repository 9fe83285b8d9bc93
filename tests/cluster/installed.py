"""Squall as helm installed it on a cluster: what tests of faults ask of it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from testbed.cluster import Cluster
from testbed.cluster.nodes import PAUSE
from testbed.cluster.waiting import until
from testbed.images.build import TOOLS
from testbed.traces import difference
from tests.cluster.charts import CHART, NAMESPACE, helm

API = "chaos-mesh.org/v1alpha1"
LEASE_SECONDS = 10
PATIENCE_SECONDS = 90.0
"""For whatever takes a second on a quiet machine."""


@contextmanager
def installation(cluster: Cluster, *values: str) -> Iterator["Installed"]:
    """Install the chart and wait until everything is ready; remove it afterwards."""
    where, wait = f"--namespace={NAMESPACE}", ("--wait", "--timeout=5m")
    basic = (f"--set=controller.pauseImage={PAUSE}", f"--set=leaseSeconds={LEASE_SECONDS}")
    helm("install", "squall", CHART, where, *wait, *basic, *values, server=cluster)
    try:
        yield Installed(cluster)
    finally:
        helm("uninstall", "squall", where, *wait, server=cluster)
        listed = ("get", "pods", where, "--output=name")  # helm does not wait for them
        until("the end of its pods", lambda: not cluster.kubectl(*listed), PATIENCE_SECONDS)


class Usual:
    """The installation that most tests share: made for the first of them, gone when told."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._installed: Installed | None = None
        self._stack = ExitStack()

    def have(self) -> "Installed":
        """Give it; install it unless it is there."""
        if self._installed is None:
            self._installed = self._stack.enter_context(installation(self._cluster))
        return self._installed

    def leave(self) -> None:
        """Uninstall it if it is there: others want the cluster to themselves."""
        self._installed = None
        self._stack.close()


class Installed:
    """An installation, and the cluster it is on."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._number = 0

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl; raises `RuntimeError` with its complaint."""
        return self.cluster.kubectl(*arguments, stdin=stdin)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects."""
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "-f=-", stdin=json.dumps(listed))

    def read(self, kind: str, name: str, namespace: str) -> Any:
        """Read an object."""
        return json.loads(self.kubectl("get", kind, name, f"-n={namespace}", "--output=json"))

    def pods(self, namespace: str, *pods: Mapping[str, Any]) -> None:
        """Start pods and wait until they are ready."""
        self.apply(*pods)
        self.ready(namespace, *(pod["metadata"]["name"] for pod in pods))

    def ready(self, namespace: str, *pods: str) -> None:
        """Wait until pods are ready."""
        named = [f"pod/{name}" for name in pods]
        seconds = f"--timeout={PATIENCE_SECONDS:.0f}s"
        self.kubectl("wait", *named, f"-n={namespace}", "--for=condition=Ready", seconds)

    def address(self, namespace: str, pod: str) -> str:
        """Say which address a pod has."""
        return self.addresses(namespace, pod)[0]

    def addresses(self, namespace: str, pod: str) -> tuple[str, ...]:
        """Say which addresses a pod has, IPv4 first."""
        listed = self.read("pod", pod, namespace)["status"]["podIPs"]
        return tuple(each["ip"] for each in listed)

    def run(self, namespace: str, pod: str, *command: str) -> str:
        """Run a command in a pod; raises `RuntimeError` when it fails."""
        return self.kubectl("exec", f"-n={namespace}", pod, "--", *command)

    @contextmanager
    def experiment(
        self, kind: str, namespace: str, spec: Mapping[str, Any]
    ) -> Iterator["Experiment"]:
        """Create an experiment on pods with `app: client`, unless the spec says other."""
        self._number += 1
        name = f"{spec.get('action', kind).lower()}-{self._number}"
        client = {"mode": "all", "selector": selector(namespace, app="client")}
        metadata = {"name": name, "namespace": namespace}
        self.kubectl(
            "create",
            "-f=-",
            stdin=json.dumps(
                {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": {**client, **spec}}
            ),
        )
        experiment = Experiment(self, kind.lower(), namespace, name)
        try:
            yield experiment
        finally:
            experiment.delete()

    def node_faults(self) -> list[Any]:
        """List what agents are told now."""
        listed = json.loads(self.kubectl("get", "nodefaults", f"-n={NAMESPACE}", "--output=json"))
        items: list[Any] = listed["items"]
        return items

    def state(self, namespace: str) -> Mapping[str, str]:
        """Read what faults may leave on the nodes and in pods of a namespace."""
        return self.cluster.state(namespace)

    @contextmanager
    def leaves_nothing(self, namespace: str) -> Iterator[None]:
        """Compare nodes and pods of a namespace before with how they are soon afterwards."""
        # What goes by itself meanwhile, with what others have deleted, is no trace of ours.
        going = ("get", "namespaces,pods", "-A", "-o=jsonpath={..deletionTimestamp}")
        until("the end of what was deleted", lambda: not self.kubectl(*going), PATIENCE_SECONDS)
        before = self.state(namespace)
        yield
        left: list[str] = []

        def same() -> bool:
            left[:] = [difference(before, self.state(namespace))]
            return not left[0]

        try:
            until("what was before", same, 30)
        except RuntimeError as late:
            raise AssertionError(f"left behind:\n{left[0]}") from late


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment that was created."""

    installed: Installed
    kind: str
    namespace: str
    name: str

    def read(self) -> Any:
        """Read it."""
        return self.installed.read(self.kind, self.name, self.namespace)

    def wait(self, condition: str) -> None:
        """Wait for a condition, such as AllInjected; `Paused=False` is one, too."""
        self._wait(f"condition={condition}")

    def _wait(self, what: str) -> None:
        where = (f"{self.kind}/{self.name}", f"-n={self.namespace}")
        seconds = f"--timeout={PATIENCE_SECONDS:.0f}s"
        try:
            self.installed.kubectl("wait", *where, f"--for={what}", seconds)
        except RuntimeError as late:
            raise RuntimeError(f"{late}\n{json.dumps(self.read().get('status'))}") from late

    def records(self) -> list[Any]:
        """Give its records."""
        found = self.read().get("status", {}).get("experiment", {}).get("containerRecords")
        records: list[Any] = found or []
        return records

    def verdicts(self, *selector_keys: str) -> list[str]:
        """Say of each target of the main selector, or of others, what was found out."""
        proofs = [
            record.get("proof") or {}
            for record in self.records()
            if record["selectorKey"] in (selector_keys or ".")
        ]
        return [proof.get("verdict", "") for proof in proofs]

    def confirmed(self, *selector_keys: str) -> None:
        """Wait until all is injected, and Confirmed on every target of these selectors."""
        self.wait("AllInjected")
        for index, record in enumerate(self.records()):
            if record["selectorKey"] in (selector_keys or "."):
                path = f"{{.status.experiment.containerRecords[{index}].proof.verdict}}"
                self._wait(f"jsonpath={path}=Confirmed")

    def annotate(self, text: str) -> None:
        """Annotate it, as `key=value`, or `key-` to take it away."""
        self.installed.kubectl("annotate", self.kind, self.name, text, f"-n={self.namespace}")

    def delete(self) -> None:
        """Delete it and wait until it is gone, and its NodeFaults with it."""
        where = (f"-n={self.namespace}", "--ignore-not-found")
        seconds = f"--timeout={PATIENCE_SECONDS:.0f}s"
        self.installed.kubectl("delete", self.kind, self.name, *where, seconds)

        def no_orders() -> bool:
            left = [one["spec"]["experiment"] for one in self.installed.node_faults()]
            return (self.namespace, self.name) not in [(o["namespace"], o["name"]) for o in left]

        until("the end of its NodeFaults", no_orders, PATIENCE_SECONDS)


def selector(namespace: str, **labels: str) -> dict[str, Any]:
    """Select pods of a namespace by labels."""
    return {"namespaces": [namespace], "labelSelectors": labels}


def pod(namespace: str, name: str, node: str, *command: str, **spec: Any) -> dict[str, Any]:
    """Describe a pod of the tools image with the label `app: <name>`; it serves HTTP by default."""
    container: dict[str, Any] = {"name": "main", "image": TOOLS}
    if command:
        container["command"] = list(command)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            **spec,
        },
    }


def service(namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    """Describe a Service in front of the pods with the label `app: <name>`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}], **spec},
    }
