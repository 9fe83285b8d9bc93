"""Squall on a real Kubernetes of two nodes: from kubectl's call on, beside the limits.

    python bench/cluster.py [--runs 5] [--idle 120]

Everything is real: kubelets, containerd, pods, the image, the chart installed by helm. A start is
counted from the moment `kubectl apply` is called, which itself takes some 0.1 s, until the API
server tells a watch that everything is injected. Exit status 1 when a figure misses its limit.
"""

import argparse
import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from statistics import median
from typing import Any

from squall.api.cluster import POD, Change, Event, Object
from squall.faults import kinds
from squall.kubernetes.client import HttpCluster
from testbed.cluster import Cluster, running
from testbed.cluster.images import BUSYBOX
from testbed.cluster.nodes import PAUSE
from testbed.helm import program as helm
from testbed.images.build import squall_image
from testbed.kubernetes.build import programs

CHART = Path(__file__).parents[1] / "deploy/helm/squall"
SPACE, INSTALLED = "bench", "squall"
MANY = 40
FAILED = 10
GIVEN_UP_AFTER_SECONDS = 60.0
LEADS_AFTER_SECONDS = 5.0
WHOLE_AFTER_SECONDS = 120.0
MEGABYTE = 1_000_000

missed = 0


def figure(name: str, measured: float, limit: float, unit: str, beside: str = "") -> None:
    """Print one figure beside its limit."""
    global missed  # noqa: PLW0603  (a script's one result)
    good = measured <= limit
    missed += not good
    print(f"{name:52} {measured:8.2f} {unit:10} of {limit:6.2f}", end="")
    print(f"  {'ok' if good else 'MISSED'}  {beside}", flush=True)


def experiment(kind: str, name: str, **spec: Any) -> Object:
    """Make an experiment."""
    return {
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {"mode": "all", **spec},
    }


def labelled(role: str) -> Mapping[str, Any]:
    """Select pods by their role here."""
    return {"labelSelectors": {"role": role}}


def cut(name: str, one: str, other: str) -> Object:
    """Cut two groups of pods from each other."""
    far = {"mode": "all", "selector": labelled(other)}
    spec = {"action": "partition", "direction": "both", "selector": labelled(one), "target": far}
    return experiment("NetworkChaos", name, **spec)


def pod(name: str, role: str, node: str) -> Object:
    """Make a pod that does nothing."""
    waits = {"name": "main", "image": BUSYBOX, "command": ["sleep", "infinity"]}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [waits]}
    metadata = {"name": name, "namespace": SPACE, "labels": {"role": role}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


class Bench:
    """One installation on one cluster, and what is measured of it."""

    def __init__(self, cluster: Cluster, api: HttpCluster) -> None:
        self.cluster, self.api = cluster, api

    async def seconds(self, obj: Object, until: Callable[[Event], bool], *command: str) -> float:
        """Call kubectl with an experiment, and time from there until a watch shows something."""
        resource = kinds()[obj["kind"]].resource
        async with aclosing(self.api.watch(resource, SPACE)) as events:
            async for event in events:  # the watch stands before kubectl is called
                if event.change is Change.SYNCED:
                    break
            began = time.monotonic()
            kubectl = await asyncio.create_subprocess_exec(
                programs() / "kubectl",
                f"--kubeconfig={self.cluster.kubeconfig}",
                *command,
                "-f=-",
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
            async with asyncio.timeout(GIVEN_UP_AFTER_SECONDS):
                written = asyncio.create_task(kubectl.communicate(json.dumps(obj).encode()))
                async for event in events:
                    if until(event):
                        break
                took = time.monotonic() - began
                await written
        return took

    async def once(self, obj: Object) -> tuple[float, float]:
        """Apply and delete one experiment; seconds until injected, and until gone."""
        started = await self.seconds(obj, injected, "apply")
        return started, await self.seconds(obj, gone, "delete", "--wait=false")

    async def whole(self) -> None:
        """Wait until every pod runs its own image again, which takes kubelets longer than us.

        A pod whose container is just being replaced is passed over: ten would be fewer.
        """
        async with asyncio.timeout(WHOLE_AFTER_SECONDS):
            while not all(map(_runs_its_own, await self.api.list(POD, SPACE))):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    def requests(self) -> Counter[tuple[str, str, str]]:
        """Count what the accounts of Squall have asked of the API server so far."""
        mine = f"system:serviceaccount:{INSTALLED}:"
        counted = Counter[tuple[str, str, str]]()
        for (user, verb, resource), count in self.cluster.requests().items():
            if user.startswith(mine):
                counted[user.removeprefix(mine), verb, resource] += count
        return counted

    def resident(self, component: str) -> float:
        """Give the largest process of a component's pods, in megabytes."""
        label = f"app.kubernetes.io/component={component}"
        names = self.cluster.kubectl(
            "get", "pods", f"-n={INSTALLED}", "-l", label, "-o=jsonpath={.items[*].metadata.name}"
        ).split()
        pids = [self.cluster.processes_of(INSTALLED, name, component)[0] for name in names]
        return max(_resident(pid) for pid in pids) / MEGABYTE

    def leader(self) -> str:
        """Name the pod of the controller that leads."""
        path = "-o=jsonpath={.spec.holderIdentity}"
        return self.cluster.kubectl("get", "lease", "squall-controller", f"-n={INSTALLED}", path)


def _runs_its_own(pod: Object) -> bool:
    statuses = pod["status"].get("containerStatuses") or ()
    wanted = {one["name"]: one["image"] for one in pod["spec"]["containers"]}
    running = {one["name"]: one["image"] for one in statuses if one["ready"]}
    return wanted == running


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def injected(event: Event) -> bool:
    """Does everything act?"""
    conditions = (event.object.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "AllInjected" and c["status"] == "True" for c in conditions)


def gone(event: Event) -> bool:
    """Is the object no more?"""
    return event.change is Change.DELETED


async def faults(bench: Bench, runs: int) -> None:
    """Time starts and ends, and count requests."""
    cases = [
        ("partition 40+1", lambda n: cut(f"wide-{n}", "many", "one"), 0.6, 0.6),
        ("partition 1+1", lambda n: cut(f"narrow-{n}", "left", "one"), 0.35, 0.3),
        (
            "pod-failure 10",
            lambda n: experiment(
                "PodChaos", f"stand-{n}", action="pod-failure", selector=labelled("failed")
            ),
            0.4,
            0.4,
        ),
    ]
    await bench.once(cut("first", "left", "one"))  # rooms are loaded, tables are made
    for name, make, starts, ends in cases:
        before = bench.requests()
        timed = []
        for number in range(runs):
            await bench.whole()
            timed.append(await bench.once(make(number)))
        await asyncio.sleep(2.0)  # events come after what they tell
        asked = bench.requests() - before
        figure(f"{name}: apply -> AllInjected", median(t for t, _ in timed), starts, "s")
        figure(f"{name}: delete -> gone", median(t for _, t in timed), ends, "s")
        each = sum(n for (_, _, what), n in asked.items() if what != "leases") / runs
        figure(f"{name}: API requests for one experiment", each, 40, "")


def leadership(bench: Bench) -> None:
    """Kill the leader, and wait for the other."""
    old = bench.leader()
    began = time.monotonic()
    [pid, *_] = bench.cluster.processes_of(INSTALLED, old, "controller")
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    while bench.leader() == old and time.monotonic() - began < GIVEN_UP_AFTER_SECONDS:
        time.sleep(0.1)
    took = time.monotonic() - began
    figure("another controller leads after SIGKILL", took, LEADS_AFTER_SECONDS, "s")


async def idle(bench: Bench, seconds: float) -> None:
    """Count what is asked when there is nothing to do."""
    before = bench.requests()
    await asyncio.sleep(seconds)
    asked = sum((bench.requests() - before).values())
    figure("idle: API requests of all", asked / seconds, 0.5, "/s")
    figure("resident: controller", bench.resident("controller"), 90, "MB")
    figure("resident: agent", bench.resident("agent"), 60, "MB")


def install(cluster: Cluster) -> None:
    """Install the chart with real helm, and wait until it is ready."""
    cluster.load(squall_image())
    command = [helm(), "install", "squall", CHART, f"--kubeconfig={cluster.kubeconfig}"]
    values = [f"--set=controller.pauseImage={PAUSE}"]
    where = [f"--namespace={INSTALLED}", "--create-namespace", "--wait", "--timeout=5m"]
    subprocess.run([*command, *values, *where], check=True, stdout=subprocess.DEVNULL)


def populate(cluster: Cluster) -> None:
    """Start the pods that are hit, on both nodes, and wait until they run."""
    roles = ["many"] * MANY + ["one", "left"] + ["failed"] * FAILED
    nodes = cluster.nodes
    pods = [pod(f"{role}-{n}", role, nodes[n % len(nodes)]) for n, role in enumerate(roles)]
    cluster.make_namespace(SPACE)
    listed = {"apiVersion": "v1", "kind": "List", "items": pods}
    cluster.kubectl("create", "-f=-", stdin=json.dumps(listed))
    cluster.kubectl(
        "wait", "pods", "--all", f"-n={SPACE}", "--for=condition=Ready", "--timeout=300s"
    )


async def measure(cluster: Cluster, runs: int, seconds: float) -> None:
    """Measure everything on one installation."""
    async with HttpCluster.from_kubeconfig(cluster.kubeconfig) as api:
        bench = Bench(cluster, api)
        await faults(bench, runs)
        await idle(bench, seconds)
        leadership(bench)


def main() -> int:
    """Make the cluster, measure, and take it down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--idle", type=float, default=120.0)
    given = parser.parse_args()
    with running(f"bench-{secrets.token_hex(3)}", size=2) as cluster:
        install(cluster)
        populate(cluster)
        asyncio.run(measure(cluster, given.runs, given.idle))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
