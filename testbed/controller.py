"""`squall controller` as a pod has it, for tests: started, stopped, killed by its pid."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from testbed.installation import PATIENCE_SECONDS, SQUALL


@dataclass
class ControllerProcess:
    """One `squall controller`."""

    folder: Path
    """For its socket and its log."""
    identity: str
    namespace: str
    kubeconfig: Path | None = None
    """None: it must find out by itself."""
    lease_seconds: float = 60.0
    options: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    """What the command stands behind, such as `unshare`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: "subprocess.Popen[bytes] | None" = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.alive:
            self.kill()

    @property
    def alive(self) -> bool:
        """Does it run?"""
        return self._process is not None and self._process.poll() is None

    @property
    def socket(self) -> Path:
        """What `squall-node health` asks."""
        return self.folder / f"{self.identity}.sock"

    @property
    def log(self) -> str:
        """Everything it wrote."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def resident(self) -> int:
        """Memory in KiB; proc_pid_status(5)."""
        status = Path(f"/proc/{self._running.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def command(self) -> list[str]:
        """What its pod runs."""
        given = ("--kubeconfig", str(self.kubeconfig)) if self.kubeconfig else ()
        return [
            *self.prefix,
            str(SQUALL),
            "controller",
            *("--namespace", self.namespace),
            *("--lease-seconds", str(self.lease_seconds)),
            *("--health", str(self.socket)),
            *given,
            *self.options,
        ]

    def start(self) -> None:
        """Start it; returns when it is ready."""
        offset = len(self.log)
        environment = {
            name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ
        }
        environment |= {"POD_NAME": self.identity, **self.environment}
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command(), stdout=output, stderr=output, env=environment
            )
        ends = time.monotonic() + PATIENCE_SECONDS
        while f"squall controller {self.identity} is ready" not in self.log[offset:]:
            if not self.alive or time.monotonic() > ends:
                raise RuntimeError(f"squall controller did not begin:\n{self.log}")
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
    def _log(self) -> Path:
        return self.folder / f"{self.identity}.log"

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError("not started")
        return self._process
