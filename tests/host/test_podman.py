"""A container of Debian's Podman shows up as a Pod, with its labels; a command runs in it."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from squall.api.cluster import POD
from squall.api.fake_cluster import FakeCluster
from squall.clock import FakeClock
from squall.kubernetes.embedded.pods_of_host import HostPods
from squall.kubernetes.embedded.pods_status import Host
from squall.linux.host_containers import LinuxHostContainers
from squall.linux.processes import Processes
from squall.linux.sessions import Commands
from testbed.installation import eventually

pytestmark = [
    pytest.mark.host,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not shutil.which("podman"), reason="podman is not installed"),
]

PROGRAM = str(Path(sys.executable).with_name("squall-node"))
UNIFIED = "/sys/fs/cgroup/unified"
IMAGE, NAME = "squall-test/sleep:1", f"shop_web_{os.getpid()}"


class Podman:
    """Podman with a store of its own, without a network, from an image that is one program."""

    def __init__(self, directory):
        self._directory = directory
        self.socket = directory / "podman.sock"
        self._service = None

    def __call__(self, *arguments):
        return subprocess.run(
            self._command(*arguments), check=True, capture_output=True, text=True, timeout=60
        ).stdout.strip()

    def _command(self, *arguments):
        options = {"root": "store", "runroot": "run", "tmpdir": "tmp"}
        words = [f"--{name}={self._directory / place}" for name, place in options.items()]
        words += ["--storage-driver=vfs", "--cgroup-manager=cgroupfs", *arguments]
        if not Path(UNIFIED, "cgroup.controllers").exists():
            return ["podman", *words]
        # crun refuses hosts with both versions of cgroups: hide the second one from it.
        script = f'umount {UNIFIED} && exec podman "$@"'
        return ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", *words]

    def make_image(self):
        program = shutil.which("sleep")
        listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True)
        archive = self._directory / "image.tar"
        with tarfile.open(archive, "w") as image:
            for path in (program, *re.findall(r"(/\S+)", listed.stdout)):
                image.add(Path(path).resolve(), path.lstrip("/"))
            for name in ("proc", "sys", "dev"):
                image.addfile(directory(name))
        self("import", "--quiet", str(archive), IMAGE)

    def serve(self):
        self._service = subprocess.Popen(
            self._command("system", "service", "--time=0", f"unix://{self.socket}"),
            stderr=subprocess.DEVNULL,
        )

    def close(self):
        if self._service:
            self._service.terminate()
            self._service.wait(10)
        with suppress(subprocess.CalledProcessError):
            self("rm", "--force", "--time=0", NAME)
        for root in Path("/sys/fs/cgroup").iterdir():  # what Podman leaves, if nobody else uses it
            for path in (root / "libpod_parent/conmon", root / "libpod_parent"):
                with suppress(OSError):
                    path.rmdir()


def directory(name):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry


@pytest.fixture
def podman():
    directory = Path(tempfile.mkdtemp(prefix="squall-"))  # Podman refuses paths above 50 octets
    podman = Podman(directory)
    try:
        podman.make_image()
        podman.serve()
        yield podman
    finally:
        podman.close()
        shutil.rmtree(directory)


@pytest.fixture
async def cluster(podman):
    """An API with the containers of this host in it."""
    cluster, clock = FakeCluster(), FakeClock()
    containers = LinuxHostContainers(find_sockets=lambda: [podman.socket])
    pods = HostPods(cluster, containers, Host("laptop", ("192.0.2.1",)), clock)

    async def run_and_tick():
        async with asyncio.TaskGroup() as group:
            group.create_task(pods.run())
            while True:
                await clock.advance(0.1)
                await asyncio.sleep(0.02)

    task = asyncio.create_task(run_and_tick())
    yield cluster
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def pod_of(cluster, id_):
    for pod in await cluster.list(POD):
        statuses = (pod.get("status") or {}).get("containerStatuses") or ()
        if any(status["containerID"] == f"podman://{id_}" for status in statuses):
            return pod
    return None


async def test_a_container_of_podman_is_a_pod_until_it_ends(podman, cluster):
    await eventually(podman.socket.exists, "podman answers")
    limits = ("--ulimit=nofile=512:512", "--ulimit=nproc=512:512")
    labels = ("--label=com.docker.compose.project=shop", "--label=dir=/srv/shop")
    run = ("run", "--detach", "--network=none", f"--name={NAME}", *limits, *labels, IMAGE)
    id_ = await asyncio.to_thread(podman, *run, shutil.which("sleep"), "1000")

    pod = await eventually(lambda: pod_of(cluster, id_), "the container is a pod")
    assert pod["metadata"]["name"] == NAME.replace("_", "-")
    assert pod["metadata"]["labels"] == {"com.docker.compose.project": "shop"}
    assert pod["metadata"]["annotations"]["dir"] == "/srv/shop"
    assert IMAGE in pod["spec"]["containers"][0]["image"]
    pid, started = (await Processes().resolve([id_]))[id_]
    assert str(pid) == await asyncio.to_thread(podman, "inspect", "-f", "{{.State.Pid}}", NAME)

    commands = Commands(PROGRAM)
    session = await commands.start(pid, started, ["sleep", "0"], stdin=False, tty=False)
    assert await session.wait() == 0
    session = await commands.start(pid, started, ["ls"], stdin=False, tty=False)
    assert b"No such file" in await session.stderr.read()  # its image is one program
    assert await session.wait() == 127

    os.kill(pid, signal.SIGKILL)

    async def vanished():
        return await pod_of(cluster, id_) is None

    await eventually(vanished, "the pod is gone with its container")


async def test_a_deleted_pod_ends_its_container(podman, cluster):
    await eventually(podman.socket.exists, "podman answers")
    limits = ("--ulimit=nofile=512:512", "--ulimit=nproc=512:512")
    run = ("run", "--detach", "--network=none", f"--name={NAME}", *limits, IMAGE)
    id_ = await asyncio.to_thread(podman, *run, shutil.which("sleep"), "1000")
    pod = await eventually(lambda: pod_of(cluster, id_), "the container is a pod")
    await cluster.delete(POD, "default", pod["metadata"]["name"], grace_seconds=0)

    async def ended():
        return not await Processes().resolve([id_])

    await eventually(ended, "the container has ended")
