"""An experiment from its first to its last second, as kubectl shows it and pods feel it."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any

import pytest

from testbed.cluster.requests import Request
from testbed.cluster.waiting import until
from tests.cluster.installed import Experiment, Installed, pod
from tests.cluster.paths import Path, serves
from tests.cluster.test_pods import deployment, rolled_out

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

DELAY: dict[str, Any] = {"action": "delay", "delay": {"latency": "100ms"}}
SLOW_SECONDS = 0.19
"""Two packets of the client's are waited for."""
BRIEF_SECONDS = 20


@pytest.fixture
def there(installed: Installed, namespace: str) -> Path:
    """From the pod `client` on node1 to the pod `server` on node2."""
    server = pod(namespace, "server", "node2")
    installed.pods(namespace, pod(namespace, "client", "node1"), server)
    path = Path(installed, namespace, "client", installed.address(namespace, "server"))
    serves(path)
    return path


def is_slow(path: Path) -> bool:
    """Is it slow each time? A busy machine may be so once, without anybody's delay."""
    took = [path.fetch(5) for _ in range(5)]
    return all(each is not None and each > SLOW_SECONDS for each in took)


@contextmanager
def watching(installed: Installed, namespace: str, shown: FilePath) -> Iterator[None]:
    """Have `kubectl get networkchaos -w` run, from before anything can change; it writes there."""
    watch = ["get", "networkchaos", f"-n={namespace}", "--watch", "--output=json"]
    begins = Request("admin", "watch", "networkchaos.chaos-mesh.org")
    before = installed.cluster.requests()[begins]
    command = installed.cluster.kubectl_command(*watch)
    with shown.open("w") as output, subprocess.Popen(command, stdout=output) as process:
        try:
            until("the watch", lambda: installed.cluster.requests()[begins] > before)
            yield
        finally:
            process.terminate()


def objects(text: str) -> list[Any]:
    """Read JSON documents that stand one after the other."""
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        try:
            read, end = decoder.raw_decode(text)
        except ValueError:  # it was ended in the middle of one
            break
        found.append(read)
        text = text[end:]
    return found


def conditions(shown: Any) -> dict[str, str]:
    return {c["type"]: c["status"] for c in shown.get("status", {}).get("conditions", ())}


def test_kubectl_shows_every_transition_and_event(
    installed: Installed, namespace: str, there: Path, tmp_path: FilePath
) -> None:
    written = tmp_path / "shown"

    def shown() -> list[Any]:
        return objects(written.read_text())

    with (
        watching(installed, namespace, written),
        installed.experiment("NetworkChaos", namespace, DELAY) as experiment,
    ):
        experiment.confirmed()
        listed = installed.kubectl("get", "networkchaos", f"-n={namespace}")
        assert listed.split()[:2] == ["NAME", "ACTION"]
        assert "delay" in listed
        until("its events", lambda: "Successfully apply chaos" in described(experiment), 60)
        assert "FinalizerInited" in described(experiment)
        assert "Confirmed" in described(experiment)
        assert is_slow(there)
        experiment.delete()
        until("its end", lambda: "deletionTimestamp" in shown()[-1]["metadata"], 30)
    injected = [conditions(one).get("AllInjected") for one in shown()]
    assert "True" in injected
    assert injected[0] != "True"


def described(experiment: Experiment) -> str:
    where = f"-n={experiment.namespace}"
    return experiment.installed.kubectl("describe", experiment.kind, experiment.name, where)


def test_an_annotation_pauses_and_resumes(
    installed: Installed, namespace: str, there: Path
) -> None:
    with (
        installed.leaves_nothing(namespace),
        installed.experiment("NetworkChaos", namespace, DELAY) as experiment,
    ):
        experiment.confirmed()
        experiment.annotate("experiment.chaos-mesh.org/pause=true")
        experiment.wait("Paused")
        experiment.wait("AllRecovered")
        assert not is_slow(there)
        experiment.annotate("experiment.chaos-mesh.org/pause-")
        experiment.wait("Paused=False")
        experiment.wait("AllInjected")
        assert is_slow(there)


def test_a_duration_ends_by_itself(installed: Installed, namespace: str, there: Path) -> None:
    spec = {**DELAY, "duration": f"{BRIEF_SECONDS}s"}
    with installed.leaves_nothing(namespace):
        began = time.monotonic()
        with installed.experiment("NetworkChaos", namespace, spec) as experiment:
            experiment.wait("AllInjected")
            assert is_slow(there)
            experiment.wait("AllRecovered")
            assert time.monotonic() - began > BRIEF_SECONDS - 1
            assert not is_slow(there)
            assert experiment.read()["status"]["experiment"]["desiredPhase"] == "Stop"


def test_a_live_selection_follows_restarts_and_new_pods(
    installed: Installed, namespace: str
) -> None:
    installed.apply(deployment(namespace, "client", 1))
    rolled_out(installed, namespace, "client")
    spec = {**DELAY, "selection": "live"}
    with installed.experiment("NetworkChaos", namespace, spec) as experiment:
        experiment.confirmed()
        [first] = experiment.records()
        name = first["id"].rpartition("/")[2]
        [main, *_] = installed.cluster.processes_of(namespace, name)
        subprocess.run(["kill", "-KILL", str(main)], check=True)
        until("the restart", lambda: restarted(installed, namespace, name), 90)
        until("the fault", lambda: experiment.records()[0]["injectedCount"] > 1, 90)
        experiment.confirmed()
        installed.kubectl("scale", "deployment/client", f"-n={namespace}", "--replicas=3")
        rolled_out(installed, namespace, "client")
        until("three targets", lambda: len(experiment.records()) == 3, 90)
        experiment.confirmed()
        installed.kubectl("scale", "deployment/client", f"-n={namespace}", "--replicas=1")
        until("one target", lambda: len(experiment.records()) == 1, 90)


def restarted(installed: Installed, namespace: str, name: str) -> bool:
    [state] = installed.read("pod", name, namespace)["status"]["containerStatuses"]
    return bool(state["restartCount"] == 1 and state["ready"])


def test_a_pod_on_its_nodes_network_is_passed_over_with_a_reason(
    installed: Installed, namespace: str
) -> None:
    target = pod(namespace, "client", "node1", "sleep", "9999", hostNetwork=True)
    installed.pods(namespace, target)
    with (
        installed.leaves_nothing(namespace),
        installed.experiment("NetworkChaos", namespace, DELAY) as experiment,
    ):
        experiment.wait("Selected=False")
        [selected] = [
            c for c in experiment.read()["status"]["conditions"] if c["type"] == "Selected"
        ]
        assert "shares the network of its node" in selected["reason"]
