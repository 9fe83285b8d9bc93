"""How the control plane bears 100 nodes, 6,000 pods and 200 experiments, beside its limits.

    python bench/scale.py [--nodes 100] [--pods 6000] [--experiments 200]

API server, etcd, kubectl, controller and agents are real; nodes and pods are objects, and what
agents inject into is in memory. Exit status 1 when a figure misses its limit.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import orjson

from squall.api.crd import definition
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.client import HttpCluster
from testbed import simulated_nodes as simulated
from testbed.apiserver import running
from testbed.audit import Request, table
from testbed.load import Load, delay, partition, stress
from testbed.simulated_nodes import PARTS

MEBIBYTE = 1024 * 1024

CASES = ("few", "all", "many", "killed")


@dataclass
class Figures:
    """Prints each figure beside its limit, and remembers whether one was missed."""

    missed: int = 0

    def show(self, name: str, value: float, limit: float, unit: str) -> None:
        """Print one figure; at the limit is good."""
        good = value <= limit
        self.missed += not good
        verdict = "" if good else "  MISSED"
        print(f"{name:58s} {value:9.2f} of {limit:g} {unit}{verdict}", flush=True)


async def one_over_all(load: Load, figures: Figures, kind: str, targets: int) -> None:
    """One experiment over every pod: how fast, with how many writes, how large."""
    manifest = {"NetworkChaos": delay, "StressChaos": stress}[kind]("all", {"app": "web"})
    load.audit.skip()
    seconds, obj = await load.inject(manifest)
    figures.show(f"{kind} over {targets}: inject", seconds, 60, "s")
    size = len(orjson.dumps(obj)) / MEBIBYTE
    figures.show(f"{kind} over {targets}: size of the object", size, 1.5, "MiB")
    seconds = await load.delete(manifest)
    figures.show(f"{kind} over {targets}: recover", seconds, 60, "s")
    asked = await load.settled()
    writes = [one for one in asked if one.writes]
    figures.show(f"{kind} over {targets}: writes for each target", len(writes) / targets, 2, "")
    print(table(asked))


async def many(load: Load, figures: Figures, count: int) -> None:
    """Many experiments at once, over ten pods on ten nodes each."""
    manifests = [delay(f"many-{n}", {"part": str(n % PARTS)}, most=10) for n in range(count)]
    load.audit.skip()
    seconds = await load.inject_all(manifests)
    figures.show(f"{count} experiments at once: all injected", seconds, 60, "s")
    seconds = await load.delete_all(manifests)
    figures.show(f"{count} experiments at once: all gone", seconds, 60, "s")
    print(table(await load.settled()))


async def few(load: Load, figures: Figures, pods: int, limits: tuple[float, float]) -> None:
    """One partition between `pods` pods and another one, on two nodes, by kubectl."""
    manifest = partition("few", f"few-{pods}")
    times: list[tuple[float, float]] = []
    asked: list[Request] = []
    for _ in range(5):
        await load.settled()
        load.audit.skip()
        injected = await load.apply(manifest)
        asked = await load.settled()  # until every verdict is in
        times.append((injected, await load.kubectl_delete(manifest)))
        asked += await load.settled()
    medians = (statistics.median(column) for column in zip(*times, strict=True))
    injected, gone = medians
    case = f"partition {pods}+1"
    figures.show(f"{case}: kubectl apply to AllInjected", injected, limits[0], "s")
    figures.show(f"{case}: kubectl delete to gone", gone, limits[1], "s")
    figures.show(f"{case}: requests, kubectl's not counted", len(asked), 40, "")
    print(table(asked))


async def measure(stack: ExitStack, folder: Path, asked: argparse.Namespace) -> int:
    """Build the scene, and run every case in it."""
    definitions = [definition(kind) for kind in served_kinds(kinds())]
    users = (simulated.CONTROLLER, simulated.AGENTS)
    server = stack.enter_context(running(folder, definitions, users=users, audited=True))
    figures = Figures()
    async with HttpCluster.from_kubeconfig(server.kubeconfig) as cluster:
        began = time.monotonic()
        await simulated.write_namespaces(cluster, ["squall", "load", "few-40", "few-1"])
        await simulated.write_nodes(cluster, asked.nodes)
        each = asked.pods // asked.nodes
        everywhere = dict.fromkeys(range(asked.nodes), each)
        await simulated.write_pods(cluster, "load", everywhere, {"app": "web"})
        for pods in (40, 1):
            two = {0: (pods + 1) // 2, 1: pods // 2 + 1}
            await simulated.write_pods(cluster, f"few-{pods}", two, {"app": "web"})
        print(f"{asked.nodes} nodes, {asked.pods} pods: {time.monotonic() - began:.1f} s")
        leader = stack.enter_context(simulated.controller(server, "one"))
        stack.enter_context(simulated.agents(server, asked.nodes))
        load = Load(server, cluster)
        await load.ready(asked.nodes)
        print(f"controller resident: {simulated.peak_mib(leader):.0f} MiB at most", flush=True)
        if "few" in asked.cases:
            await few(load, figures, 40, (0.6, 0.6))
            await few(load, figures, 1, (0.35, 0.3))
        for kind in ("NetworkChaos", "StressChaos"):
            if "all" in asked.cases:
                await one_over_all(load, figures, kind, asked.pods)
        if "many" in asked.cases:
            await many(load, figures, asked.experiments)
        figures.show("controller resident", simulated.peak_mib(leader), 300, "MiB")
        if "killed" not in asked.cases:
            return figures.missed
        manifest = delay("all", {"app": "web"})
        second = stack.enter_context(simulated.controller(server, "two"))
        seconds = await load.survive(manifest, leader, asked.pods)
        figures.show("leader killed while injecting: all injected", seconds, 60 + 60, "s")
        figures.show("all recovered by the other", await load.delete(manifest), 60, "s")
        figures.show("second controller resident", simulated.peak_mib(second), 300, "MiB")
    return figures.missed


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--pods", type=int, default=6000)
    parser.add_argument("--experiments", type=int, default=200)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-", dir="/dev/shm"))
        sys.exit(bool(asyncio.run(measure(stack, Path(folder), asked))))


if __name__ == "__main__":
    main()
