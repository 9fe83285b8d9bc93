"""A running `squall up`: how soon faults act, how soon experiments are done, what it costs to idle.

Each figure stands beside its limit and beside a yardstick measured in the same run: the time that
`nft` alone takes to add and delete a rule, or that kill(2) takes to be felt.
"""

import asyncio
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from squall.api.cluster import POD, Cluster, Object
from testbed.installation import Installation, eventually, gone, injected, ready_pod, resource_of

RUNS = 15
MANY = 40
IDLE_SECONDS = 10.0
UNTIL_REFUSED = """
import socket, sys, time
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("ready", flush=True)
ends = time.monotonic() + 10
while time.monotonic() < ends:
    try:
        link.sendto(b"x", ("{address}", 9))
    except PermissionError:
        print(time.monotonic())
        break
    time.sleep(0.0002)
"""


def figure(name: str, measured: float, limit: float, unit: str, beside: str = "") -> None:
    """Print one figure as a ratio to its limit."""
    verdict = "ok" if measured <= limit else "MISSED"
    print(f"{name:44} {measured:8.2f} {unit:4} of {limit:6.0f}", end="")
    print(f"  x{measured / limit:5.2f}  {verdict} {beside}")


def experiment(kind: str, name: str, spec: dict) -> Object:
    """Make an experiment on pods labelled for this benchmark."""
    return {
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"mode": "all", **spec},
    }


def select_by(label: str) -> dict:
    """Select by one label."""
    return {"labelSelectors": {"bench": label}}


async def partition_acts_ms(up: Installation, cluster: Cluster, run: int) -> float:
    """Time from the stored object to the first refused send inside the target."""
    address = (await ready_pod(cluster, "other"))["status"]["podIP"]
    command = [up_squall(), "exec", "one", "--", sys.executable, "-c"]
    poller = await asyncio.create_subprocess_exec(
        *command,
        UNTIL_REFUSED.format(address=address),
        stdout=subprocess.PIPE,
        env=environment(up),
    )
    await poller.stdout.readline()
    cut = experiment(
        "NetworkChaos", f"cut-{run}", {"action": "partition", "selector": select_by("one")}
    )
    await cluster.create(resource_of(cut), cut)
    stored = time.monotonic()
    refused = float(await poller.stdout.readline())
    await poller.wait()
    await gone(cluster, cut)
    return (refused - stored) * 1000


async def kill_acts_ms(cluster: Cluster, run: int) -> float:
    """Time from the stored object to the end of the container's first process."""
    pod = await ready_pod(cluster, "one")
    container = pod["status"]["containerStatuses"][0]
    process = os.pidfd_open(init_of(container["containerID"].partition("://")[2]))
    poll = select.poll()
    poll.register(process, select.POLLIN)
    kill = experiment(
        "PodChaos",
        f"kill-{run}",
        {
            "action": "container-kill",
            "containerNames": [container["name"]],
            "selector": select_by("one"),
        },
    )

    async def ended() -> float:
        await asyncio.to_thread(poll.poll, 10_000)
        return time.monotonic()

    waiting = asyncio.create_task(ended())
    await asyncio.sleep(0.01)
    await cluster.create(resource_of(kill), kill)
    stored = time.monotonic()
    dead = await waiting
    os.close(process)
    await injected(cluster, kill)
    await gone(cluster, kill)
    await eventually(lambda: restarted(cluster, container["containerID"]), "it is started again")
    return (dead - stored) * 1000


async def restarted(cluster: Cluster, old: str) -> bool:
    """Does another container run in the pod?"""
    pod = await ready_pod(cluster, "one")
    return pod["status"]["containerStatuses"][0]["containerID"] != old


def init_of(container: str) -> int:
    """Find the oldest process of a container."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if container in path.read_text():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return min(found)


async def lap_ms(cluster: Cluster, label: str, name: str) -> tuple[float, float]:
    """Time from create to AllInjected, and from delete to gone."""
    cut = experiment("NetworkChaos", name, {"action": "partition", "selector": select_by(label)})
    begun = time.monotonic()
    await cluster.create(resource_of(cut), cut)
    await injected(cluster, cut)
    there = time.monotonic()
    await gone(cluster, cut)
    return (there - begun) * 1000, (time.monotonic() - there) * 1000


def resident_mib(pid: int) -> float:
    """Proportional resident memory of a process and all its children, in MiB."""
    total = 0.0
    for process in [pid, *children(pid)]:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) / 1024
    return total


def children(pid: int) -> list[int]:
    """Every process below one."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    direct = [int(child) for file in listed for child in file.read_text().split()]
    return [below for child in direct for below in (child, *children(child))]


def cpu_seconds(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def nft_alone_ms() -> float:
    """What the tool itself takes to add and delete a table, in a namespace of its own."""
    script = "add table inet yardstick; delete table inet yardstick"
    begun = time.monotonic()
    subprocess.run(["unshare", "--net", "nft", script], check=True)
    return (time.monotonic() - begun) * 1000


def up_squall() -> str:
    """Path of the command."""
    return str(Path(sys.executable).with_name("squall"))


def environment(up: Installation) -> dict[str, str]:
    """For commands against an installation."""
    return {"PATH": os.environ["PATH"], "KUBECONFIG": str(up.kubeconfig)}


async def measure(up: Installation) -> None:
    """Print every figure that needs a running installation."""
    idle = resident_mib(up.pid)
    begun = cpu_seconds(up.pid)
    await asyncio.sleep(IDLE_SECONDS)
    spent = (cpu_seconds(up.pid) - begun) / IDLE_SECONDS * 100
    figure("idle: resident, all processes", idle, 110, "MiB")
    figure("idle: processor", spent, 1, "%")
    async with up.cluster() as cluster:
        for name in ("one", "other"):
            up.squall("run", "--name", name, "--label", f"bench={name}", "--", "sleep", "100000")
            await ready_pod(cluster, name)
        yardstick = median(nft_alone_ms() for _ in range(RUNS))
        acts = [await partition_acts_ms(up, cluster, run) for run in range(RUNS)]
        figure(
            "partition acts after it is stored, p50",
            median(acts),
            15,
            "ms",
            f"(nft alone {yardstick:.1f} ms)",
        )
        kills = [await kill_acts_ms(cluster, run) for run in range(RUNS)]
        figure("container-kill acts after it is stored, p50", median(kills), 15, "ms")
        await laps(cluster, "one", 1, 100)
        for number in range(MANY):
            up.squall(
                "run", "--name", f"many-{number}", "--label", "bench=many", "--", "sleep", "100000"
            )
        for number in range(MANY):
            await ready_pod(cluster, f"many-{number}")
        await laps(cluster, "many", MANY, 400)
        assert await cluster.list(POD, "default")


async def laps(cluster: Cluster, label: str, count: int, limit: float) -> None:
    """Print the time to inject and to recover `count` targets."""
    times = [await lap_ms(cluster, label, f"lap-{label}-{run}") for run in range(RUNS)]
    figure(f"apply to AllInjected, {count} targets, p50", median(t[0] for t in times), limit, "ms")
    figure(f"delete to gone, {count} targets, p50", median(t[1] for t in times), limit, "ms")


def main() -> None:
    """Start an installation of its own and measure it."""
    with tempfile.TemporaryDirectory(prefix="squall-bench-") as directory:
        up = Installation(Path(directory) / "squall")
        seconds = up.start()
        try:
            figure("ready after start", seconds * 1000, 1000, "ms")
            asyncio.run(measure(up))
        finally:
            up.stop()


if __name__ == "__main__":
    main()
