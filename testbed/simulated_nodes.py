"""Nodes that are there for the API alone: real agents and watches, and nothing to inject into.

Load tests have more nodes and pods than any machine of ours: Node and Pod objects are written as
kubelets would, and an agent runs for each node, its own but for the world it acts on, which is in
memory. `python -m testbed.simulated_nodes` is a process of agents.
"""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from squall.api.cluster import NAMESPACE, NODE, POD, Object
from squall.faults import kinds
from squall.injection.world import World
from squall.injection.world.fake_containers import FakeContainers
from squall.injection.world.fake_network import FakeNetwork
from squall.injection.world.fake_pods import FakePods
from squall.injection.world.fake_stressors import FakeStressors
from squall.kubernetes.client import HttpCluster
from squall.linux.clock import SystemClock
from squall.node.agent import Agent
from squall.node.doctor import Ability, Capability
from squall.node.journal import Journal
from squall.node.presence import Presence
from testbed.apiserver import ApiServer

CONTROLLER, AGENTS = "controller", "agents"
"""Users of the API server: who asks is seen in its audit log."""

INSTALLED_IN = "squall"

AT_ONCE = 32
"""Requests under way while nodes and pods are written."""

NODES_PER_PROCESS = 50

PARTS = 200
"""Values of the label `part`, which deals pods out evenly."""


class _Anything:
    """Processes of every container that is asked for."""

    async def resolve(self, container_ids: Collection[str]) -> Mapping[str, tuple[int, int]]:
        return dict.fromkeys(container_ids, (1, 1))

    def in_pod(self, pid: int, uids: Collection[str]) -> bool:
        return True


class _Everything:
    """A node that can do whatever is asked."""

    async def examine(self, names: Iterable[str]) -> Mapping[str, Capability]:
        return {name: Capability(name, Ability.OK) for name in names}


def node_name(number: int) -> str:
    """Name a simulated node."""
    return f"node-{number:03d}"


async def write_namespaces(cluster: HttpCluster, names: Sequence[str]) -> None:
    """Create namespaces."""
    for name in names:
        await cluster.create(NAMESPACE, {"metadata": {"name": name}})


async def write_nodes(cluster: HttpCluster, count: int) -> None:
    """Create that many nodes, ready."""
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    for number in range(count):
        name = node_name(number)
        labels = {"kubernetes.io/hostname": name}
        await cluster.create(NODE, {"metadata": {"name": name, "labels": labels}})
        await cluster.patch(NODE, None, name, ready, subresource="status")


async def write_pods(
    cluster: HttpCluster, namespace: str, nodes: Mapping[int, int], labels: Mapping[str, str]
) -> None:
    """Create running pods.

    Args:
        cluster: where.
        namespace: one that exists; pods are numbered in it from 0, so it is used once.
        nodes: how many on which node, by number.
        labels: of every pod; `part` is added, the number of the pod modulo `PARTS`.
    """
    where = [number for number, count in nodes.items() for _ in range(count)]
    waiting = iter(enumerate(where))

    async def some() -> None:
        for index, node in waiting:
            pod = _pod(namespace, index, node_name(node), labels)
            made = await cluster.create(POD, pod)
            status = _running(made, index)
            name = pod["metadata"]["name"]
            await cluster.patch(POD, namespace, name, {"status": status}, subresource="status")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())


def _pod(namespace: str, index: int, node: str, labels: Mapping[str, str]) -> Object:
    environment = [{"name": f"SETTING_{n}", "value": f"value {n}"} for n in range(8)]
    return {
        "metadata": {
            "name": f"web-6b7f6db9c-{index:05d}",
            "namespace": namespace,
            "labels": {**labels, "part": str(index % PARTS)},
        },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "web", "image": "web:1", "env": environment}],
        },
    }


def _running(pod: Object, index: int) -> Object:
    address = f"10.{64 + index // 65536}.{index // 256 % 256}.{index % 256}"
    container = {
        "name": "web",
        "containerID": f"containerd://{pod['metadata']['uid'].replace('-', '') * 2}",
        "image": "web:1",
        "imageID": "sha256:0",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T12:00:00Z"}},
    }
    conditions = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": name, "status": "True"} for name in conditions],
        "containerStatuses": [container],
    }


@contextmanager
def agents(server: ApiServer, count: int) -> Iterator[None]:
    """Run the agents of nodes 0 to `count` - 1, many in one process."""
    with ExitStack() as ends:
        for first in range(0, count, NODES_PER_PROCESS):
            numbers = [str(first), str(min(first + NODES_PER_PROCESS, count))]
            command = [sys.executable, "-m", "testbed.simulated_nodes"]
            command += [str(server.kubeconfig_of(AGENTS)), str(server.folder), *numbers]
            ends.enter_context(_process(server, "agents", command))
        yield


@contextmanager
def controller(server: ApiServer, identity: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a controller as a process of its own."""
    squall = str(Path(sys.executable).with_name("squall"))
    command = [squall, "controller", f"--kubeconfig={server.kubeconfig_of(CONTROLLER)}"]
    command += [f"--identity={identity}", f"--namespace={INSTALLED_IN}"]
    with _process(server, identity, command) as process:
        yield process


def peak_mib(process: subprocess.Popen[bytes]) -> float:
    """Read how much memory a process had resident at most; proc(5), VmHWM."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@contextmanager
def _process(
    server: ApiServer, log: str, command: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    with (server.folder / f"{log}.log").open("ab") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command], stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _act(kubeconfig: Path, folder: Path, numbers: range) -> None:
    clock = SystemClock()
    async with asyncio.TaskGroup() as group:
        for number in numbers:
            world = World(clock, FakeNetwork(), FakeContainers(), FakePods(), FakeStressors(clock))
            journal = Journal(folder / "journals" / f"{number}.db", "boot")
            agent = Agent(
                HttpCluster.from_kubeconfig(kubeconfig),
                clock,
                kinds(),
                world,
                _Anything(),
                journal,
                node_name=node_name(number),
                lease_seconds=60.0,
                namespace=INSTALLED_IN,
            )
            group.create_task(agent.run())
            presence = Presence(
                HttpCluster.from_kubeconfig(kubeconfig),
                clock,
                namespace=INSTALLED_IN,
                node_name=node_name(number),
                capabilities=_Everything(),
                needs=(need for kind in kinds().values() for need in kind.needs),
            )
            group.create_task(presence.run())


def main() -> None:
    """Run the agents of some nodes until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("folder", type=Path, help="of the API server; journals go there")
    parser.add_argument("first", type=int)
    parser.add_argument("end", type=int)
    asked = parser.parse_args()
    uvloop.run(_act(asked.kubeconfig, asked.folder, range(asked.first, asked.end)))


if __name__ == "__main__":
    main()
