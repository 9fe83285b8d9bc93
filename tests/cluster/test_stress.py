"""StressChaos: load in exactly the container that was meant, whatever sort it is of."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.cluster.layout import hierarchies
from testbed.cluster.waiting import until
from testbed.images.build import TOOLS
from tests.cluster.installed import Installed, pod

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

# A pod that asks for nothing gets nothing where others are busy, and then no load is felt.
SLEEP = {
    "image": TOOLS,
    "command": ["sleep", "9999"],
    "resources": {"requests": {"cpu": "400m"}},
}
MAIN = {"name": "main", **SLEEP}
CPU = {"stressors": {"cpu": {"workers": 1, "load": 20}}}
MEMORY = {"stressors": {"memory": {"workers": 1, "size": "100MB"}}}


def usage(controller: str, file: str, container_id: str) -> int:
    """Read what the kernel counted for a container."""
    root = next(one for one in hierarchies() if controller in one.name.split(","))
    # os.walk passes over groups of other pods that end meanwhile; Path.glob fails on them.
    groups = (path for path, _, _ in os.walk(root) if path.endswith(f"/{container_id}"))
    return int(Path(next(groups), file).read_text())


def container_id(installed: Installed, namespace: str, container: str) -> str:
    status = installed.read("pod", "client", namespace)["status"]
    sorts = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    [found] = [s for sort in sorts for s in status.get(sort, ()) if s["name"] == container]
    return str(found["containerID"].rpartition("/")[2])


def cpu_seconds(installed: Installed, namespace: str, container: str) -> float:
    """Processor time that a container has used until now."""
    ident = container_id(installed, namespace, container)
    return usage("cpuacct", "cpuacct.usage", ident) / 1e9


def is_busy(installed: Installed, namespace: str, container: str) -> bool:
    """Has the container used processor time of its own since it was asked first?"""
    began = cpu_seconds(installed, namespace, container)
    until(
        f"load in {container}",
        lambda: cpu_seconds(installed, namespace, container) > began + 0.3,
        60,
    )
    return True


@pytest.mark.parametrize("host_network", [False, True])
def test_a_processor_is_loaded(installed: Installed, namespace: str, host_network: bool) -> None:
    target = pod(namespace, "client", "node1", containers=[MAIN], hostNetwork=host_network)
    installed.pods(namespace, target, pod(namespace, "other", "node1", "sleep", "9999"))
    with installed.leaves_nothing(namespace):
        idle = cpu_seconds(installed, namespace, "main")
        with installed.experiment("StressChaos", namespace, CPU) as experiment:
            experiment.confirmed()
            assert is_busy(installed, namespace, "main")
        assert cpu_seconds(installed, namespace, "main") > idle + 0.3


def test_memory_is_taken_and_given_back(installed: Installed, namespace: str) -> None:
    installed.pods(namespace, pod(namespace, "client", "node2", "sleep", "9999"))
    ident = container_id(installed, namespace, "main")

    def taken() -> float:
        return usage("memory", "memory.usage_in_bytes", ident) / 1e6

    with installed.leaves_nothing(namespace):
        assert taken() < 50
        with installed.experiment("StressChaos", namespace, MEMORY) as experiment:
            experiment.confirmed()
            assert 90 < taken() < 160
        until("the memory", lambda: taken() < 50, 30)


@pytest.fixture(scope="module")
def several(installed: Installed) -> Iterator[str]:
    """A pod with containers of every sort that runs all the time; gives its namespace."""
    namespace = f"stress-{secrets.token_hex(3)}"
    installed.cluster.make_namespace(namespace)
    side = [{"name": "side", "restartPolicy": "Always", **SLEEP}]
    target = pod(namespace, "client", "node2", containers=[MAIN], initContainers=side)
    installed.pods(namespace, target)
    debug(installed, namespace)
    yield namespace
    installed.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.mark.parametrize("container", ["main", "side", "debugger"])
def test_a_container_of_any_sort_can_be_named(
    installed: Installed, several: str, container: str
) -> None:
    spec = {**CPU, "containerNames": [container]}
    others = {"main", "side", "debugger"} - {container}
    with installed.leaves_nothing(several):
        before = {name: cpu_seconds(installed, several, name) for name in others}
        with installed.experiment("StressChaos", several, spec) as experiment:
            experiment.confirmed()
            assert [one["id"] for one in experiment.records()] == [f"{several}/client/{container}"]
            assert is_busy(installed, several, container)
        for name, used in before.items():
            assert cpu_seconds(installed, several, name) < used + 0.2


def test_an_init_container_can_be_named_while_it_runs(installed: Installed, namespace: str) -> None:
    first = [{"name": "first", **SLEEP}]
    installed.apply(pod(namespace, "client", "node1", containers=[MAIN], initContainers=first))
    runs = "jsonpath={.status.initContainerStatuses[0].state.running.startedAt}"
    installed.kubectl("wait", "pod/client", f"-n={namespace}", f"--for={runs}", "--timeout=90s")
    spec = {**CPU, "containerNames": ["first"]}
    with (
        installed.leaves_nothing(namespace),
        installed.experiment("StressChaos", namespace, spec) as experiment,
    ):
        experiment.confirmed()
        assert is_busy(installed, namespace, "first")


def debug(installed: Installed, namespace: str) -> None:
    """Put an ephemeral container into the pod, and wait until it runs."""
    how = (f"--image={TOOLS}", "--container=debugger", "--target=main", "--profile=general")
    where = ("pod/client", f"-n={namespace}")
    installed.kubectl("debug", *where, *how, "--", "sleep", "9999")
    runs = "jsonpath={.status.ephemeralContainerStatuses[0].state.running.startedAt}"
    installed.kubectl("wait", *where, f"--for={runs}", "--timeout=90s")
