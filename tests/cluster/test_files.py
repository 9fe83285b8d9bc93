"""IOChaos in pods: felt through files that were open before, proven, and gone without a trace."""

import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster.layout import RUN
from testbed.cluster.waiting import until
from testbed.images.build import TOOLS
from tests.cluster.installed import Installed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

WRITER = """
import json, os, sys, time
held = os.open("/data/log", os.O_RDWR | os.O_CREAT)
number = errors = 0
while True:
    begun, number, error = time.perf_counter(), number + 1, 0
    try:
        os.pwrite(held, b"%09d" % number, 9 * number)
        os.fsync(held)
    except OSError as failed:
        error, errors = failed.errno, errors + 1
    ms = (time.perf_counter() - begun) * 1000
    felt = {"number": number, "errno": error, "errors": errors, "ms": ms}
    with open("/tmp/next", "w") as file:
        json.dump(felt, file)
    os.rename("/tmp/next", "/tmp/felt")
    time.sleep(0.02)
"""
CHECK = """
import sys
written = [line for line in open("/data/log", "rb").read()[9:].split(b"\\0") if line]
for part in written:
    numbers = [int(part[at : at + 9]) for at in range(0, len(part), 9)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
print("whole")
"""
SLOW = {"action": "latency", "delay": "100ms", "volumePath": "/data", "methods": ["fsync"]}
BROKEN = {"action": "fault", "errno": 28, "volumePath": "/data", "methods": ["write"]}


def writer(namespace: str, name: str, node: str, volume: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a pod that writes to a volume all the time, through a file that it holds open."""
    main = {
        "name": "main",
        "image": TOOLS,
        "command": ["python3", "-c", WRITER],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    side = {"name": "side", "image": TOOLS, "command": ["sleep", "9999"]}
    side["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [main, side],
            "volumes": [{"name": "data", **volume}],
        },
    }


def felt(installed: Installed, namespace: str) -> dict[str, Any]:
    """Read what the latest write felt."""
    command = ("exec", f"-n={namespace}", "client", "-c=main", "--", "cat", "/tmp/felt")
    found: dict[str, Any] = json.loads(installed.kubectl(*command))
    return found


@pytest.mark.parametrize("sort", ["emptyDir", "hostPath"])
def test_latency_and_errors_are_felt_stack_and_go(
    installed: Installed, namespace: str, sort: str, request: pytest.FixtureRequest
) -> None:
    there = {"path": f"/tmp/squall-test-{namespace}", "type": "DirectoryOrCreate"}
    request.addfinalizer(lambda: shutil.rmtree(there["path"], ignore_errors=True))
    volume = {sort: there if sort == "hostPath" else {}}
    installed.pods(namespace, writer(namespace, "client", "node1", volume))
    until("the first write", lambda: felt(installed, namespace)["number"] > 1, 30)
    with installed.leaves_nothing(namespace):
        with installed.experiment("IOChaos", namespace, SLOW) as slow:
            slow.confirmed()
            assert felt(installed, namespace)["ms"] >= 100
            assert [one["id"] for one in slow.records()] == [f"{namespace}/client/main"]
            with installed.experiment("IOChaos", namespace, BROKEN) as broken:
                broken.confirmed()
                assert felt(installed, namespace)["errno"] == 28
            until("writes again", lambda: felt(installed, namespace)["errno"] == 0, 10)
            assert felt(installed, namespace)["ms"] >= 100
        until("quick writes", lambda: felt(installed, namespace)["ms"] < 100, 10)
        whole = ("exec", f"-n={namespace}", "client", "-c=side", "--", "python3", "-c", CHECK)
        assert installed.kubectl(*whole).strip() == "whole"


def test_only_the_container_that_is_named_feels_it(installed: Installed, namespace: str) -> None:
    pod = writer(namespace, "client", "node2", {"emptyDir": {}})
    installed.pods(namespace, pod)
    until("the first write", lambda: felt(installed, namespace)["number"] > 1, 30)
    spec = {**BROKEN, "methods": [], "errno": 5, "containerNames": ["side"]}
    look = ("exec", f"-n={namespace}", "client", "-c=side", "--", "cat", "/data/log")
    with installed.leaves_nothing(namespace):
        with installed.experiment("IOChaos", namespace, spec) as experiment:
            experiment.confirmed()
            assert [one["id"] for one in experiment.records()] == [f"{namespace}/client/side"]
            with pytest.raises(RuntimeError, match="Input/output error"):
                installed.kubectl(*look)
            assert felt(installed, namespace)["errno"] == 0
        installed.kubectl(*look)


FILL = "with open('/data/large', 'wb') as file: file.write(bytes(3 << 20)); print('written')"
SYNC = """
import os
held = os.open("/data/saved", os.O_RDWR | os.O_CREAT)
os.write(held, b"kept")
os.fsync(held)
os.write(held, b"lost")
"""


def test_a_disk_is_full_for_as_long_as_asked(installed: Installed, namespace: str) -> None:
    installed.pods(namespace, writer(namespace, "client", "node1", {"emptyDir": {}}))
    fill = ("exec", f"-n={namespace}", "client", "-c=main", "--", "python3", "-c", FILL)
    spec = {"action": "noSpace", "space": "1MB", "volumePath": "/data"}
    with installed.leaves_nothing(namespace):
        with installed.experiment("IOChaos", namespace, spec) as full:
            full.wait("AllInjected")
            with pytest.raises(RuntimeError, match="No space left on device"):
                installed.kubectl(*fill)
            full.confirmed()
        assert installed.kubectl(*fill).strip() == "written"


def test_power_that_fails_takes_what_was_not_synced(installed: Installed, namespace: str) -> None:
    installed.pods(namespace, writer(namespace, "client", "node1", {"emptyDir": {}}))
    inside = ("exec", f"-n={namespace}", "client", "-c=side", "--")
    spec = {"action": "powerLoss", "volumePath": "/data", "path": "/data/saved"}
    kill = {"action": "container-kill", "containerNames": ["main"]}
    saved = ("exec", f"-n={namespace}", "client", "-c=main", "--", "python3", "-c", SYNC)
    with installed.experiment("IOChaos", namespace, spec) as power:
        power.wait("AllInjected")
        installed.kubectl(*saved)
        with installed.experiment("PodChaos", namespace, kill) as killed:
            killed.wait("AllInjected")
            until("the restart", lambda: restarts(installed, namespace) == 1, 60)
        installed.ready(namespace, "client")
    assert installed.kubectl(*inside, "cat", "/data/saved") == "kept"


def restarts(installed: Installed, namespace: str) -> int:
    told = installed.read("pod", "client", namespace)["status"]["containerStatuses"]
    return sum(one["restartCount"] for one in told)


def test_a_filter_that_dies_costs_an_error_at_most_and_is_made_anew(
    installed: Installed, namespace: str
) -> None:
    installed.pods(namespace, writer(namespace, "client", "node1", {"emptyDir": {}}))
    until("the first write", lambda: felt(installed, namespace)["number"] > 1, 30)
    with installed.leaves_nothing(namespace):
        with installed.experiment("IOChaos", namespace, SLOW) as slow:
            slow.confirmed()
            [old] = filters(installed)
            os.kill(old, signal.SIGKILL)
            until("another filter", lambda: set(filters(installed)) - {old}, 60)
            until("the fault again", lambda: felt(installed, namespace)["ms"] >= 100, 60)
            assert felt(installed, namespace)["errors"] <= 1
        until("quick writes", lambda: felt(installed, namespace)["ms"] < 100, 10)
        whole = ("exec", f"-n={namespace}", "client", "-c=side", "--", "python3", "-c", CHECK)
        assert installed.kubectl(*whole).strip() == "whole"


def filters(installed: Installed) -> Iterator[int]:
    """Find what stands over files on this cluster's nodes."""
    place = str(RUN / installed.cluster.name)
    for process in Path("/proc").iterdir():
        try:
            called = (process / "cmdline").read_bytes()
            if b"squall-node\0files\0" in called and place in (process / "mountinfo").read_text():
                yield int(process.name)
        except OSError:  # it has ended, or is none
            continue
