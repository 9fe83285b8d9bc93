"""What faults may leave on nodes and in containers, read from the kernel, to be compared later."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from testbed.cluster.layout import Layout, Node, hierarchies
from testbed.cluster.namespaces import own_folder
from testbed.cluster.processes import Process, in_cgroups
from testbed.traces import Namespace

_SETTINGS = ("freezer.state", "cgroup.freeze", "memory.limit_in_bytes", "cpu.cfs_quota_us")

_PROXY_TABLES = re.compile(
    r"^table ip6? (nat|filter|mangle|raw) \{.*?^\}\n", re.MULTILINE | re.DOTALL
)
_CABLE_LINE = re.compile(r"\bdev veth|^\d+: veth")
_CABLE = re.compile(r" ?\bveth[0-9a-f]+\b")


@dataclass(frozen=True, slots=True)
class Container:
    """A container that runs."""

    namespace: str
    pod: str
    name: str
    id: str
    node: str

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.namespace}/{self.pod}/{self.name}"


def containers(pods: str) -> list[Container]:
    """List the running containers in what `kubectl get pods -o json` says."""
    return [
        Container(
            pod["metadata"]["namespace"],
            pod["metadata"]["name"],
            status["name"],
            status["containerID"].rpartition("/")[2],
            pod["spec"]["nodeName"],
        )
        for pod in json.loads(pods)["items"]
        for sort in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
        for status in pod["status"].get(sort, ())
        if "running" in status["state"]
    ]


def processes(layout: Layout, container: Container) -> list[int]:
    """List the pids of a container's processes, its first one first."""
    node = next(each for each in layout.nodes if each.name == container.node)
    found: set[int] = set()
    for root in hierarchies():
        for folder in _groups(root, node, container):
            with suppress(OSError):
                found.update(map(int, (folder / "cgroup.procs").read_text().split()))
    alive = [process for pid in found if (process := Process.of(pid)) is not None]
    return [process.pid for process in sorted(alive, key=lambda process: process.started)]


def read(layout: Layout, running: Sequence[Container]) -> Mapping[str, str]:
    """Read everything of all nodes and of these containers.

    Compare two readings with `testbed.traces.difference`.
    """
    readings: dict[str, str] = {}
    for node in layout.nodes:
        with Namespace(node.net) as network:
            traces = network.traces()
        readings |= {f"{node.name} {what}": _stays(text) for what, text in traces.items()}
        pids = [process.pid for process in in_cgroups(node.cgroup)]
        links = [line for pid in pids for line in _bpf_links(pid)]
        readings[f"{node.name} bpf links"] = "\n".join(links)
        readings[f"{node.name} files"] = "\n".join(sorted(_files(node)))
    for container in running:
        for what, text in _of_container(layout, container).items():
            readings[f"{container.title} {what}"] = text
    return readings


def _stays(text: str) -> str:
    """Leave out what comes and goes with pods and Services: their cables, kube-proxy's rules."""
    text = _PROXY_TABLES.sub("", text)
    lines = (line for line in text.splitlines() if not _CABLE_LINE.search(line))
    return "\n".join(_CABLE.sub("", line) for line in lines)


def _of_container(layout: Layout, container: Container) -> Mapping[str, str]:
    pids = processes(layout, container)
    if not pids:
        return {"processes": ""}
    node = next(each for each in layout.nodes if each.name == container.node)
    with Namespace(pids[0]) as network, Namespace(node.net) as nodes_own:
        readings = dict(network.traces())
        if network.inode == nodes_own.inode:
            readings = {what: _stays(text) for what, text in readings.items()}
    readings["processes"] = "\n".join(sorted(_commands(pids)))
    readings["mounts"] = "\n".join(sorted(_mount_points(pids[0])))
    readings["cgroups"] = "\n".join(sorted(_cgroups(node, container)))
    return readings


def _files(node: Node) -> Iterator[str]:
    """List what lies in the folders that are an agent's own on a real node."""
    for path in ("/run/squall", "/var/lib/squall"):
        own = own_folder(node, path)
        yield from (f"{path}/{each.relative_to(own)}" for each in own.rglob("*"))


def _commands(pids: Sequence[int]) -> Iterator[str]:
    for pid in pids:
        with suppress(OSError):
            yield Path(f"/proc/{pid}/comm").read_text().strip()


def _mount_points(pid: int) -> Iterator[str]:
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        yield f"{before.split()[4]} {after.split()[0]}"


def _bpf_links(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fdinfo"):
            with suppress(OSError):
                if "link_type:" in (text := Path(entry.path).read_text()):
                    yield text


def _groups(root: Path, node: Node, container: Container) -> Iterator[Path]:
    """Find a container's group in one hierarchy."""
    for folder, names, _ in os.walk(root / node.cgroup.lstrip("/")):
        if container.id in names:
            yield Path(folder, container.id)


def _cgroups(node: Node, container: Container) -> Iterator[str]:
    for root in hierarchies():
        for group in _groups(root, node, container):
            for folder, _, _ in os.walk(group):
                below = Path(folder).relative_to(group)
                yield f"{root.name} {below}"
                for setting in _SETTINGS:
                    with suppress(OSError):
                        yield f"{root.name} {below} {setting} {Path(folder, setting).read_text()}"
