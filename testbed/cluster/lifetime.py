"""Start clusters and remove them; say what this machine lacks for one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed import coredns
from testbed.cluster import (
    control_plane,
    credentials,
    images,
    namespaces,
    network,
    nodes,
    records,
    removal,
)
from testbed.cluster.cluster import Cluster
from testbed.cluster.layout import CGROUPS, DEFAULT_NAME, Layout, Node
from testbed.cluster.metrics import answers
from testbed.cluster.namespaces import run
from testbed.cluster.pod_network import PLUGINS
from testbed.cluster.processes import HIERARCHY, Processes
from testbed.cluster.waiting import until
from testbed.kubernetes.build import built_folder

_LOG_LINES = 5
_PACKAGES = {
    "busybox": "busybox-static",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "etcd": "etcd-server",
    "ethtool": "ethtool",
    "gcc": "gcc libc6-dev",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "prometheus": "prometheus",
    "runc": "runc",
    "socat": "socat",
}


def missing() -> list[str]:
    """Name what a cluster would need and this machine has not; empty when all is there."""
    lacking = [
        f"{program} (Debian: {package})"
        for program, package in _PACKAGES.items()
        if shutil.which(program) is None
    ]
    if not (PLUGINS / "ptp").exists():
        lacking.append(f"{PLUGINS}/ptp (Debian: containernetworking-plugins)")
    if not Path("/proc/sys/net/ipv6").is_dir():
        lacking.append("IPv6 in the kernel")
    if os.geteuid() != 0:
        lacking.append("root")
    if not (CGROUPS / HIERARCHY / "cgroup.procs").exists():
        lacking.append("cgroups of version 1 (systemd.unified_cgroup_hierarchy=0)")
    if shutil.which("go") is None:
        return [*lacking, "Go 1.24 or newer (go.dev/dl)"]
    if not built_folder().is_dir():  # takes longer than any test may
        lacking.append("Kubernetes (run `python -m testbed.kubernetes`)")
    if not coredns.built():
        lacking.append("CoreDNS (run `python -m testbed.coredns`)")
    return lacking


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
            dead = mine and record.owner is None and not _runs(record.layout)
            if record.abandoned or dead:
                removal.remove(record.layout)
            elif mine:
                raise RuntimeError(f"cluster {name} is up; remove it first, or choose another name")
        record = records.begin(name, size)
        namespaces.make(record.layout)
        network.make(record.layout)
    cluster = Cluster(record.layout, owned=owned)
    try:
        _start(cluster, record.layout)
    except BaseException as failure:
        failure.add_note(_ends_of_logs(record.layout))
        down(name)
        raise
    if not owned:
        records.leave(record)
    return cluster


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
    return Cluster(record.layout, owned=record.owner is not None)


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


def _ends_of_logs(layout: Layout) -> str:
    lines = []
    for log in sorted(layout.logs.glob("*.log")):
        lines += [f"-- {log.name}", *log.read_text(errors="replace").splitlines()[-_LOG_LINES:]]
    return "\n".join(lines)


def _start(cluster: Cluster, layout: Layout) -> None:
    credentials.write(layout)
    control_plane.configure(layout)
    archives = images.write(layout.folder)
    cluster.start("etcd")
    cluster.start("kube-apiserver")
    for node in layout.nodes:
        nodes.configure(layout, node)
        cluster.start("containerd", node.name)
    until("containerd", lambda: all(map(_answers, layout.nodes)))
    cluster.load(*archives)
    until("kube-apiserver", lambda: cluster.kubectl("get", "--raw", "/readyz") == "ok")
    cluster.start("kube-controller-manager")
    cluster.start("kube-scheduler")
    for node in layout.nodes:
        cluster.start("kubelet", node.name)
        cluster.start("kube-proxy", node.name)
    cluster.kubectl("create", "-f=-", stdin=control_plane.manifests(layout))
    cluster.start("coredns")
    until("nodes", lambda: _ready(cluster) == layout.size)
    # No pod can be made before.
    until("accounts", lambda: bool(cluster.kubectl("get", "serviceaccount", "default")))
    until("coredns", lambda: answers(f"http://{layout.address}:{control_plane.NAMES_PORT}/ready"))


def _answers(node: Node) -> bool:
    run("ctr", f"--address={node.socket}", "version")
    return True


def _ready(cluster: Cluster) -> int:
    path = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    return cluster.kubectl("get", "nodes", "-o", path).split().count("True")
