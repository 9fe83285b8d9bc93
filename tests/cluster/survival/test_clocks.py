"""A controller's wall clock is stepped: what is timed ends by it, and nothing else is disturbed.

A duration counts from the experiment's creation, as the API server saw it. So a controller whose
clock is ahead ends timed experiments early, and tells; one whose clock is behind asks for them
longer, and then the agents end them, by boot time. Who leads is nothing that moments decide.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster.processes import Process
from testbed.cluster.waiting import until
from tests.cluster.survival.blows import leader, rolled_out, scale
from tests.cluster.survival.scene import (
    DELAY,
    GONE_WITHIN,
    HTTP,
    LEASE_SECONDS,
    PARTITION,
    PATIENCE,
    STRESS,
    Scene,
)

pytestmark = [pytest.mark.cluster, pytest.mark.core, pytest.mark.timeout(300)]

NAME = "stepped"
BRIEF = 30
LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
"""Of Debian's libfaketime: it fakes the wall clock of one process, and no other clock of it."""


class Stepped:
    """A third controller, on the host; its wall clock can be stepped while it runs."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self._scene, self._clock = scene, folder / "clock"
        self.step("+0")
        self.log = folder / "log"
        program = Path(sys.executable).with_name("squall")
        access = account(scene, folder)
        command = [program, "controller", f"--lease-seconds={LEASE_SECONDS}"]
        faked = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(
                [*command, f"--kubeconfig={access}"],
                env={**os.environ, **faked, "POD_NAME": NAME},
                stdout=log,
                stderr=log,
            )
        process = Process.of(self._child.pid)
        assert process is not None
        self._process = process
        ready = "a third controller"
        until(ready, lambda: b"is ready" in self.log.read_bytes(), PATIENCE, process)

    def lead(self) -> None:
        """Become the only one."""
        scale(self._scene.cluster, 0)
        leads = "the third to lead"
        until(leads, lambda: leader(self._scene.cluster) == NAME, PATIENCE, self._process)

    def step(self, by: str) -> None:
        """Step its clock, from that of the host."""
        fresh = self._clock.with_suffix(".new")
        fresh.write_text(f"{by}\n")
        fresh.replace(self._clock)

    def lease(self) -> dict[str, Any]:
        """Read the lease that it holds."""
        read = self._scene.cluster.kubectl(
            "get", "lease", "squall-controller", "-n=squall", "--output=json"
        )
        spec: dict[str, Any] = json.loads(read)["spec"]
        return spec

    def renews(self, times: int) -> None:
        """Wait until it has renewed the lease so often, and find that nobody took it."""
        before, seen = self.lease(), set[str]()

        def renewed() -> bool:
            seen.add(self.lease()["renewTime"])
            return len(seen) > times

        until("renewals", renewed, PATIENCE)
        for key in ("holderIdentity", "acquireTime", "leaseTransitions"):
            assert self.lease()[key] == before[key]

    def end(self) -> None:
        """Stop it, and have the cluster's own controllers again."""
        scale(self._scene.cluster, 2)
        self._child.send_signal(signal.SIGTERM)
        self._child.wait(30)
        rolled_out(self._scene.cluster)


def account(scene: Scene, folder: Path) -> Path:
    """Write a kubeconfig of the controllers' account: NodeFaults are refused to all others."""
    config = json.loads(scene.cluster.kubeconfig.read_text())
    token = scene.cluster.kubectl("create", "token", "squall-controller", "-n=squall")
    config["users"][0]["user"] = {"token": token.strip()}
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def acting(scene: Scene) -> Mapping[str, str]:
    """What faults without an end do; then there is another one that shall end much later."""
    scene.inject({"delay": DELAY, "http": HTTP})
    acting = scene.state()
    scene.inject({"long": PARTITION}, duration="10m")
    return acting


@pytest.fixture
def stepped(scene: Scene, acting: Mapping[str, str], tmp_path: Path) -> Iterator[Stepped]:
    """The one that renews them."""
    assert acting
    stepped = Stepped(scene, tmp_path)
    yield stepped
    stepped.step("+0")
    stepped.end()


def test_a_clock_that_is_stepped_moves_ends_by_the_clock_and_nothing_else(
    scene: Scene, acting: Mapping[str, str], stepped: Stepped
) -> None:
    scene.inject({"brief": STRESS}, duration=f"{BRIEF}s")
    everything = scene.state()
    stepped.lead()
    stepped.step("-1h")
    stepped.renews(1)
    renewed = datetime.fromisoformat(stepped.lease()["renewTime"])
    assert renewed < datetime.now(UTC) - timedelta(minutes=50), "its clock was not stepped"
    assert not scene.changed(everything), "it was told of by a clock that went back"
    until("agents to end it", lambda: not stressed(scene), BRIEF + 5)
    created = datetime.fromisoformat(scene.experiment("brief")["metadata"]["creationTimestamp"])
    assert datetime.now(UTC) - created >= timedelta(seconds=BRIEF)
    until("the truth", lambda: not scene.condition("brief", "AllInjected")[0], PATIENCE)
    assert scene.injected(("delay", "http", "long"))

    stepped.step("+1h")
    scene.kubectl("annotate", "networkchaos", "long", "looked=at")
    scene.wait("networkchaos", "long", "condition=AllRecovered")
    stepped.renews(4)  # which takes longer than a lease
    assert not scene.changed(acting)
    assert scene.injected(("delay", "http"))
    assert "Interrupted" not in scene.verdicts("delay") | scene.verdicts("http")
    scene.delete()
    scene.heals(GONE_WITHIN)


def stressed(scene: Scene) -> bool:
    return any("stress-ng" in scene.in_kernel(node) for node in scene.cluster.nodes)
