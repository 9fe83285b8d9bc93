"""Local workloads through a running `squall up`: names, restarts, deletion, what is left behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from squall.api.cluster import NODE, POD, WORKLOAD
from squall.app.places import Places
from squall.linux.processes import Processes
from testbed.installation import Installation, eventually, ready_pod

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

SLEEP = ("sleep", "1000")


@pytest.fixture
def installation(tmp_path):
    with Installation(tmp_path / "squall", lease_seconds=2) as up:
        yield up
    assert "Traceback" not in up.log, up.log


@pytest.fixture
async def cluster(installation):
    async with installation.cluster() as cluster:
        yield cluster


def run(installation, name, *command):
    installation.squall("run", "--name", name, "--label", f"app={name}", "--", *command)


def container(pod):
    return pod["status"]["containerStatuses"][0]


async def process_of(pod):
    id_ = container(pod)["containerID"].removeprefix("squall://")
    found = await eventually(lambda: Processes().resolve([id_]), f"{id_[:12]} runs")
    return found[id_][0]


async def restarted(cluster, name, count):
    async def holds():
        pod = await cluster.get(POD, "default", name)
        status = container(pod)
        return pod if status["restartCount"] == count and status["ready"] else None

    return await eventually(holds, f"{name} was restarted {count} times")


async def other_pod(cluster, name, uid):
    async def holds():
        pods = await cluster.list(POD, "default")
        found = [p for p in pods if p["metadata"]["name"] == name and p["metadata"]["uid"] != uid]
        return found[0] if found else None

    await eventually(holds, f"{name} was made anew")
    return await ready_pod(cluster, name)


def traces(mark):
    """What carries the mark in this kernel, and processes with it in their command."""
    found = [*Path("/sys/class/net").glob(f"{mark}*"), *Path("/run/squall").glob(f"*{mark[7:]}*")]
    found += [path for root in Path("/sys/fs/cgroup").iterdir() for path in root.glob(f"{mark}*")]
    found += [path for path in Path("/sys/class/net").glob("*/ifalias") if mark in path.read_text()]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if mark[7:] in line]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        found += [words] if f"squall/{mark[7:]}".encode() in words else []
    return found


async def test_two_workloads_find_each_other_and_survive_what_happens_to_them(
    installation, cluster
):
    for name in ("web", "db"):
        run(installation, name, *SLEEP)
    web, db = [await ready_pod(cluster, name) for name in ("web", "db")]
    addresses = {each["ip"] for each in web["status"]["podIPs"]}
    assert len(addresses) == 2
    for name in ("web", "web.default"):
        told = installation.squall("exec", "db", "--", "getent", "ahosts", name).stdout
        assert {line.split()[0] for line in told.splitlines()} == addresses

    os.kill(await process_of(web), signal.SIGKILL)
    after = await restarted(cluster, "web", 1)
    assert after["metadata"]["uid"] == web["metadata"]["uid"]
    assert {each["ip"] for each in after["status"]["podIPs"]} == addresses
    assert container(after)["lastState"]["terminated"]["exitCode"] == 137

    await cluster.delete(POD, "default", "web")
    anew = await other_pod(cluster, "web", web["metadata"]["uid"])
    assert {each["ip"] for each in anew["status"]["podIPs"]} == addresses
    assert container(anew)["restartCount"] == 0

    await cluster.delete(WORKLOAD, "default", "web")

    async def vanished():
        return [p["metadata"]["name"] for p in await cluster.list(POD, "default")] == ["db"]

    await eventually(vanished, "the pod of a deleted workload is gone")
    assert installation.squall("exec", "db", "--", "getent", "hosts", "web", check=False).returncode
    assert container(await ready_pod(cluster, "db")) == container(db)


async def test_a_sigkilled_squall_up_finds_its_containers_again(installation, cluster):
    run(installation, "web", *SLEEP)
    run(installation, "db", *SLEEP)
    web, db = [await ready_pod(cluster, name) for name in ("web", "db")]
    pids = [await process_of(pod) for pod in (web, db)]
    installation.kill()
    os.kill(pids[1], signal.SIGKILL)
    installation.start()
    async with installation.cluster() as again:
        after = await restarted(again, "db", 1)
        assert container(after)["lastState"]["terminated"]["exitCode"] == 137
        assert await process_of(await ready_pod(again, "web")) == pids[0]
        assert (await ready_pod(again, "web"))["status"] == web["status"]
        assert after["status"]["podIPs"] == db["status"]["podIPs"]


async def test_a_grace_period_is_given(installation, cluster):
    script = "import signal,sys,time; signal.signal(15, lambda *_: None); print('up', flush=True)\n"
    run(installation, "web", sys.executable, "-c", f"{script}while True: time.sleep(1)")
    web = await ready_pod(cluster, "web")

    pid = await process_of(web)
    children = Path(f"/proc/{pid}/task/{pid}/children")
    child = int((await eventually(children.read_text, "its command runs")).split()[0])
    caught = Path(f"/proc/{child}/status")
    await eventually(lambda: _caught(caught.read_text()) & 1 << 14, "SIGTERM is caught")
    begun = asyncio.get_running_loop().time()
    await cluster.delete(POD, "default", "web", grace_seconds=1)
    dying = await cluster.get(POD, "default", "web")
    assert dying["metadata"]["deletionGracePeriodSeconds"] == 1
    await other_pod(cluster, "web", web["metadata"]["uid"])
    assert asyncio.get_running_loop().time() - begun >= 0.9


def _caught(status):
    return int(next(x.split()[1] for x in status.splitlines() if x.startswith("SigCgt")), 16)


async def test_this_host_is_the_node_of_its_pods(installation, cluster):
    run(installation, "web", *SLEEP)
    pod = await ready_pod(cluster, "web")
    node = await cluster.get(NODE, None, pod["spec"]["nodeName"])
    assert node["status"]["conditions"][0]["type"] == "Ready"


async def test_nothing_is_left_when_squall_up_has_stopped(installation):
    mark = Places(installation.directory).mark
    for name in ("web", "db"):
        run(installation, name, "sh", "-c", "sleep 1000 & sleep 1000")
    async with installation.cluster() as cluster:
        for name in ("web", "db"):
            await ready_pod(cluster, name)
    assert len(traces(mark)) > 5
    assert installation.stop() == 0, installation.log
    assert traces(mark) == []
