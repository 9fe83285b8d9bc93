"""`squall agent` as a node has it, for tests: started, stopped, killed by its pid."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from testbed.installation import PATIENCE_SECONDS, SQUALL


@dataclass
class NodeAgent:
    """One data directory, and the `squall agent` that uses it."""

    directory: Path
    kubeconfig: Path
    node_name: str
    namespace: str
    lease_seconds: float = 60.0
    options: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    """What the command stands behind, such as `unshare`."""
    _process: "subprocess.Popen[bytes] | None" = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.alive:
            self.start()  # takes over what a killed one left behind, so that it can be taken away
        self.stop()

    @property
    def alive(self) -> bool:
        """Does it run?"""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the running `squall agent`."""
        return self._running.pid

    @property
    def _log(self) -> Path:
        return self.directory.with_name(f"{self.directory.name}.log")

    @property
    def log(self) -> str:
        """Everything it wrote."""
        return self._log.read_text() if self._log.exists() else ""

    def command(self) -> list[str]:
        """What a node runs."""
        return [
            *self.prefix,
            str(SQUALL),
            "agent",
            *("--node-name", self.node_name),
            *("--namespace", self.namespace),
            *("--data-dir", str(self.directory)),
            *("--lease-seconds", str(self.lease_seconds)),
            *("--kubeconfig", str(self.kubeconfig)),
            *self.options,
        ]

    def start(self) -> None:
        """Start it; returns when it acts."""
        offset = len(self.log)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command(), stdout=output, stderr=output, env=os.environ.copy()
            )
        ends = time.monotonic() + PATIENCE_SECONDS
        while "squall agent acts on" not in self.log[offset:]:
            if not self.alive or time.monotonic() > ends:
                raise RuntimeError(f"squall agent did not begin:\n{self.log}")
            time.sleep(0.01)

    def stop(self) -> int:
        """Stop it as a kubelet does; return its exit status."""
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
