"""`squall up` as a user has it, for tests and benchmarks: started, stopped, killed by its pid."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from squall.api.cluster import POD, ApiError, Cluster, NotFound, Object, Resource
from squall.faults import kinds
from squall.kubernetes.client import HttpCluster

SQUALL = Path(sys.executable).with_name("squall")
PATIENCE_SECONDS = 20.0
ENDING_SECONDS = 20.0


class Installation:
    """One data directory, and the `squall up` that uses it."""

    def __init__(
        self,
        directory: Path,
        *,
        lease_seconds: float = 60.0,
        options: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self._log = directory.with_name(f"{directory.name}.log")
        self._options = ("--lease-seconds", str(lease_seconds), "--no-containers", *options)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.alive:
            self.start()  # adopts what a killed one left behind, so that it can be taken away
        self.stop()

    @property
    def kubeconfig(self) -> Path:
        """How to reach it."""
        return self.directory / "kubeconfig"

    @property
    def pid(self) -> int:
        """Of the running `squall up`."""
        return self._running.pid

    @property
    def alive(self) -> bool:
        """Does it run?"""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything it wrote."""
        return self._log.read_text()

    def start(self) -> float:
        """Start it; return the seconds until it answered."""
        command = [SQUALL, "up", "--data-dir", self.directory, "--listen", "127.0.0.1:0"]
        offset = self._log.stat().st_size if self._log.exists() else 0
        begun = time.monotonic()
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, *self._options], stdout=output, stderr=output, env=_environment()
            )
        while b"squall is up" not in self._log.read_bytes()[offset:]:
            if self._process.poll() is not None or time.monotonic() - begun > PATIENCE_SECONDS:
                self._process.terminate()  # it would stay, with nobody to end it
                self._process.wait(ENDING_SECONDS)
                raise RuntimeError(f"squall up did not come up:\n{self.log}")
            time.sleep(0.01)
        return time.monotonic() - begun

    def stop(self) -> int:
        """Stop it as a service is stopped; return its exit status."""
        self._running.terminate()
        return self._running.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """SIGKILL it."""
        self._running.send_signal(signal.SIGKILL)
        self._running.wait(PATIENCE_SECONDS)

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError("not started")
        return self._process

    def squall(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a verb against it."""
        return subprocess.run(
            [SQUALL, *arguments],
            check=check,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS * 2,
            env=_environment() | {"KUBECONFIG": str(self.kubeconfig)},
        )

    @asynccontextmanager
    async def cluster(self) -> AsyncIterator[Cluster]:
        """Connect to its API."""
        async with HttpCluster.from_kubeconfig(self.kubeconfig) as cluster:
            yield cluster


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


async def eventually(holds: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:  # noqa: ANN401  (whatever `holds` returns)
    """Ask again every 10 ms until the answer is true; the answer may be a coroutine's.

    Raises:
        TimeoutError: it never was; says what was waited for.
    """
    ends = time.monotonic() + seconds
    while True:
        answer = holds()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > ends:
            raise TimeoutError(f"waited {seconds:g} s until {what}")
        await asyncio.sleep(0.01)


def resource_of(obj: Object) -> Resource:
    """Find the resource of an experiment."""
    return kinds()[obj["kind"]].resource


async def ready_pod(cluster: Cluster, name: str, namespace: str = "default") -> Object:
    """Wait until a pod is ready; return it."""

    async def ready() -> Object | None:
        try:
            pod = await cluster.get(POD, namespace, name)
        except NotFound:
            return None
        conditions = (pod.get("status") or {}).get("conditions") or ()
        held = {c["type"]: c["status"] for c in conditions}
        return pod if held.get("Ready") == "True" else None

    found: Object = await eventually(ready, f"pod {name} is ready")
    return found


def condition(obj: Object, name: str) -> bool:
    """Is a condition of an object true?"""
    found = (obj.get("status") or {}).get("conditions") or ()
    return any(c["type"] == name and c["status"] == "True" for c in found)


def records(obj: Object) -> list[dict[str, Any]]:
    """Give the records of an experiment."""
    experiment = (obj.get("status") or {}).get("experiment") or {}
    found: list[dict[str, Any]] = experiment.get("containerRecords") or []
    return found


async def injected(cluster: Cluster, experiment: Object) -> Object:
    """Wait until an experiment is AllInjected; return it."""
    meta, resource = experiment["metadata"], resource_of(experiment)

    async def holds() -> Object | None:
        seen = await cluster.get(resource, meta["namespace"], meta["name"])
        return seen if condition(seen, "AllInjected") else None

    found: Object = await eventually(holds, f"{meta['name']} is injected")
    return found


async def proven(cluster: Cluster, experiment: Object) -> list[dict[str, Any]]:
    """Wait until every record of an experiment that was asked something is Confirmed."""
    meta, resource = experiment["metadata"], resource_of(experiment)
    seen: list[dict[str, Any]] = []

    async def holds() -> list[dict[str, Any]] | None:
        seen[:] = records(await cluster.get(resource, meta["namespace"], meta["name"]))
        proofs = [record.get("proof") or {} for record in seen]
        told = [proof for proof in proofs if proof.get("asked")]
        return told if told and all(p["verdict"] == "Confirmed" for p in told) else None

    try:
        found: list[dict[str, Any]] = await eventually(holds, f"{meta['name']} is proven")
    except TimeoutError as late:
        raise TimeoutError(f"{late}; it stands: {seen}") from late
    return found


async def gone(cluster: Cluster, experiment: Object, seconds: float = PATIENCE_SECONDS) -> None:
    """Delete an experiment and wait until it is gone."""
    meta, resource = experiment["metadata"], resource_of(experiment)

    async def vanished() -> bool:
        try:
            await cluster.get(resource, meta["namespace"], meta["name"])
        except ApiError as error:
            return error.code == 404  # noqa: PLR2004
        return False

    try:
        await cluster.delete(resource, meta["namespace"], meta["name"])
    except NotFound:
        return
    await eventually(vanished, f"{meta['name']} is gone", seconds)
