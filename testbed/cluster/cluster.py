"""A whole Kubernetes on one machine: what tests hold in their hands."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.cluster import control_plane, credentials, images, network, nodes, records, removal
from testbed.cluster.layout import DEFAULT_NAME, Layout, Node
from testbed.cluster.processes import Process, Processes
from testbed.kubernetes.build import programs

START_SECONDS = 90.0
"""How long a start may take; 10 s on a quiet machine."""

_POLL_SECONDS = 0.05


class Cluster:
    """A cluster that runs."""

    def __init__(self, record: records.Record) -> None:
        self._record = record
        self._layout = record.layout
        self._processes = Processes(record.layout)

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
    def kubeconfig(self) -> Path:
        """Of an administrator (`system:masters`)."""
        return self._layout.kubeconfig()

    @property
    def folder(self) -> Path:
        """Where its logs are (below `log`), and all its files."""
        return self._layout.folder

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl and return what it prints; raises `RuntimeError` with its complaint."""
        command = [programs() / "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def load(self, *archives: Path) -> None:
        """Import docker-archives on every node."""
        for node in self._layout.nodes:
            for archive in archives:
                images.load(node, archive)

    def start(self, component: str, node: str | None = None) -> None:
        """Start a component, of the control plane or of a node; see `COMPONENTS` of both."""
        owned = self._record.owner is not None
        if node is None:
            command = control_plane.commands(self._layout)[component]
            self._processes.start(self._layout.netns, component, command, owned=owned)
        else:
            place = self.node(node)
            command = nodes.commands(self._layout, place)[component]
            self._processes.start(place.netns, f"{node}-{component}", command, owned=owned)

    def kill(self, component: str, node: str | None = None) -> None:
        """SIGKILL a component, and wait until it is gone."""
        import signal

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
        """Run a command in a node's network namespace and return what it prints."""
        return network.run(*network.inside(self.node(node).netns, *command))

    def node(self, name: str) -> Node:
        """Find a node; raises `ValueError` when there is none of that name."""
        for node in self._layout.nodes:
            if node.name == name:
                return node
        raise ValueError(f"no {name} in cluster {self.name}; it has {', '.join(self.nodes)}")


def up(name: str = DEFAULT_NAME, size: int = 2, *, owned: bool = False) -> Cluster:
    """Start a cluster and wait until its nodes are ready.

    What crashed runs left under that name, or anybody who is dead now, is removed first.

    Args:
        name: what it is called on this machine.
        size: how many nodes.
        owned: it is this process's: its components die with it.

    Raises:
        RuntimeError: such a cluster is there, or something is missing or did not start.
    """
    with records.lock():
        for record in records.everything():
            mine = record.layout.name == name
            if record.abandoned or (mine and not _runs(record.layout)):
                removal.remove(record.layout)
            elif mine:
                raise RuntimeError(
                    f"cluster {name} is up; take it down first, or choose another name"
                )
        record = records.begin(name, size, owned=owned)
        network.make(record.layout)
    try:
        return _start(record)
    except BaseException:
        if owned:
            down(name)
        raise


def down(name: str = DEFAULT_NAME) -> bool:
    """Remove a cluster with all that belongs to it; says whether there was one."""
    with records.lock():
        record = records.read(name)
        if record is not None:
            removal.remove(record.layout)
    return record is not None


def attach(name: str = DEFAULT_NAME) -> Cluster:
    """Find a cluster that is up; raises `RuntimeError` when it is not."""
    record = records.read(name)
    if record is None or not _runs(record.layout):
        raise RuntimeError(f"no cluster {name} is up; `make cluster-up` starts one")
    return Cluster(record)


@contextmanager
def running(name: str, size: int = 2) -> Iterator[Cluster]:
    """Have a cluster of one's own that is gone afterwards."""
    cluster = up(name, size, owned=True)
    try:
        yield cluster
    finally:
        down(name)


def _runs(layout: Layout) -> bool:
    return Processes(layout).find("kube-apiserver") is not None


def _start(record: records.Record) -> Cluster:
    layout = record.layout
    cluster = Cluster(record)
    credentials.write(layout)
    control_plane.configure(layout)
    archives = images.write(layout.folder)
    cluster.start("etcd")
    cluster.start("kube-apiserver")
    for node in layout.nodes:
        nodes.configure(layout, node)
        cluster.start("containerd", node.name)
    for node in layout.nodes:
        _until("containerd", lambda node=node: _answers(node))
    cluster.load(*archives)
    _until("kube-apiserver", lambda: cluster.kubectl("get", "--raw", "/readyz") == "ok")
    cluster.start("kube-controller-manager")
    cluster.start("kube-scheduler")
    for node in layout.nodes:
        cluster.start("kubelet", node.name)
        cluster.start("kube-proxy", node.name)
    _until("nodes", lambda: _ready(cluster) == layout.size)
    return cluster


def _answers(node: Node) -> bool:
    network.run("ctr", f"--address={node.socket}", "version")
    return True


def _ready(cluster: Cluster) -> int:
    path = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    return cluster.kubectl("get", "nodes", "-o", path).split().count("True")


def _until(what: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    complaint = "it does not say why"
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except RuntimeError as refused:
            complaint = str(refused)
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"{what}: not ready after {START_SECONDS:.0f} s: {complaint}")
