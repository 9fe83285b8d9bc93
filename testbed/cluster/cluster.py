"""A whole Kubernetes on one machine: what tests hold in their hands."""

import signal
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from testbed.cluster import (
    control_plane,
    images,
    namespaces,
    network,
    nodes,
)
from testbed.cluster.layout import Layout, Node
from testbed.cluster.metrics import prometheus
from testbed.cluster.namespaces import inside, run
from testbed.cluster.processes import Process, Processes
from testbed.cluster.requests import Request, count
from testbed.cluster.state import Container, containers, processes, read
from testbed.cluster.waiting import until
from testbed.kubernetes.build import programs


class Cluster:
    """A cluster that runs."""

    def __init__(self, layout: Layout, *, owned: bool) -> None:
        self._layout = layout
        self._owned = owned
        self._processes = Processes(layout)

    @property
    def name(self) -> str:
        """What it is called on this machine."""
        return self._layout.name

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of its nodes."""
        return tuple(node.name for node in self._layout.nodes)

    @property
    def url(self) -> str:
        """Of its API server, reachable from this machine."""
        return self._layout.url

    @property
    def net(self) -> Path:
        """Holds the network of its control plane: pods and Services are reached from there."""
        return self._layout.net

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator (`system:masters`)."""
        return self._layout.kubeconfig()

    @property
    def folder(self) -> Path:
        """Where its logs are (below `log`), and all its files."""
        return self._layout.folder

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl and return what it prints; raises `RuntimeError` with its complaint."""
        return run(*self.kubectl_command(*arguments), stdin=stdin)

    def kubectl_command(self, *arguments: str) -> list[str]:
        """Say how kubectl is run; what it notes about the cluster goes with the cluster."""
        places = (f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder}/kubectl")
        return [str(programs() / "kubectl"), *places, *arguments]

    def make_namespace(self, name: str) -> None:
        """Make a namespace and wait until pods can be made in it."""
        self.kubectl("create", "namespace", name)
        account = ["get", "serviceaccount", "default", f"--namespace={name}"]
        until(f"the account of {name}", lambda: self.kubectl(*account))

    def load(self, *archives: Path) -> None:
        """Import docker-archives on every node, on all of them at once."""

        def import_on(node: Node) -> None:
            for archive in archives:
                images.load(node, archive)

        with ThreadPoolExecutor() as nodes:
            list(nodes.map(import_on, self._layout.nodes))

    def start(self, component: str, node: str | None = None) -> None:
        """Start a component, of the control plane or of a node; see `COMPONENTS` of both."""
        name, enter = component, inside(self._layout.net)
        if node is None:
            commands = control_plane.commands(self._layout)
        else:
            place = self.node(node)
            name, enter = f"{node}-{component}", inside(place.net, mounts=place.view)
            commands = nodes.commands(self._layout, place)
        self._processes.start(name, [*enter, *commands[component]], owned=self._owned)

    def kill(self, component: str, node: str | None = None) -> None:
        """SIGKILL a component, and wait until it is gone."""
        process = self.process(component, node)
        process.send(signal.SIGKILL)
        if not process.wait(10.0):
            raise RuntimeError(f"{component} does not die")

    def process(self, component: str, node: str | None = None) -> Process:
        """Find a component's process; raises `RuntimeError` when it does not run."""
        name = component if node is None else f"{node}-{component}"
        process = self._processes.find(name)
        if process is None:
            raise RuntimeError(f"{name} does not run in cluster {self.name}")
        return process

    def cut(self, node: str) -> None:
        """Separate a node from the API server, the other nodes and their pods."""
        network.cut(self._layout, self.node(node))
        self._route_services()

    def mend(self, node: str) -> None:
        """Connect it again."""
        network.mend(self._layout, self.node(node))
        self._route_services()

    def _route_services(self) -> None:
        reachable = [n for n in self._layout.nodes if not network.is_cut(self._layout, n)]
        network.route_services(self._layout, reachable)

    def run_in_node(self, node: str, *command: str) -> str:
        """Run a command as if logged in on a node and return what it prints."""
        place = self.node(node)
        return run(*inside(place.net, *command, mounts=place.view))

    def on_host(self, node: str, path: Path) -> Path:
        """Say where on this machine a file is that a node and its hostPaths have at that path."""
        return namespaces.on_host(self.node(node), path)

    def processes_of(self, namespace: str, pod: str, container: str | None = None) -> list[int]:
        """List the pids of a pod's processes, or of one of its containers', oldest first."""
        found = [
            each
            for each in self._containers()
            if (each.namespace, each.pod) == (namespace, pod) and container in {None, each.name}
        ]
        return [pid for each in found for pid in processes(self._layout, each)]

    def state(self, *namespaces: str) -> Mapping[str, str]:
        """Read what faults may leave on nodes and in the running containers of these namespaces.

        `testbed.traces.difference` compares two readings.
        """
        readings: dict[str, str] = {}

        def whole() -> bool:
            running = [c for c in self._containers() if c.namespace in namespaces]
            try:
                readings.update(read(self._layout, running))
            except (subprocess.CalledProcessError, OSError) as gone:
                # Somebody's pod went, and its cable, while they were read.
                raise RuntimeError(str(gone)) from gone
            return True

        until("a whole reading", whole)
        return readings

    def requests(self, code: int | None = None) -> Counter[Request]:
        """Count who asked the API server for what until now, without Kubernetes' own parts.

        With a code: only what was answered by it, such as 403.
        """
        return count(self._layout.memory / "audit.log", code)

    def prometheus(
        self, scrape_configs: Sequence[Mapping[str, object]]
    ) -> AbstractContextManager[str]:
        """Run a real Prometheus for a while; yields its URL, reachable from this machine."""
        return prometheus(self._layout, scrape_configs, owned=self._owned)

    def _containers(self) -> list[Container]:
        return containers(self.kubectl("get", "pods", "--all-namespaces", "--output=json"))

    def node(self, name: str) -> Node:
        """Find a node; raises `ValueError` when there is none of that name."""
        for node in self._layout.nodes:
            if node.name == name:
                return node
        raise ValueError(f"no {name} in cluster {self.name}; it has {', '.join(self.nodes)}")
