"""The file filter over a directory of one's own, without a target; for benchmarks and tests."""

import ctypes
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from squall.linux.holder import program

CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18


def in_own_mounts() -> None:
    """Enter a mount namespace of one's own; mounts made there end with this process.

    Raises:
        OSError: no root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "cannot have mounts of one's own")


class Filter:
    """One `squall-node filter`, mounted over a directory."""

    def __init__(self, path: Path, process: "subprocess.Popen[str]") -> None:
        """Take over a process that has just been started."""
        self.path = path
        self.process = process
        self._asks = cast("IO[str]", process.stdin)
        self._answers = cast("IO[str]", process.stdout)
        self._answer()

    @classmethod
    @contextmanager
    def over(cls, path: Path, *, old_kernel: bool = False) -> Iterator["Filter"]:
        """Mount it over `path`, and take it away at the end.

        Args:
            path: a directory.
            old_kernel: do without what Linux 6.1 lacks.
        """
        limited = ("--as-on-linux-6.1",) if old_kernel else ()
        process = subprocess.Popen(
            (program(), "filter", path, *limited),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield cls(path, process)
        finally:
            process.communicate(timeout=10)

    def set(self, *rules: dict[str, object]) -> None:
        """Have exactly these rules in force.

        Raises:
            ValueError: they were refused; says why.
        """
        volume = {
            "path": str(self.path),
            "rules": list(rules) or [{"source": "none", "percent": 0}],
        }
        self.ask({"do": "set", "volumes": [volume], "lease": 60, "deadline": None})

    def counters(self, source: str) -> dict[str, int]:
        """Read what a source did so far."""
        found: dict[str, int] = self.ask({"do": "state"})["counters"][source]
        return found

    def bypassing(self) -> int:
        """Count open files that the kernel serves though a rule names them."""
        count: int = self.ask({"do": "state"})["bypassing"]
        return count

    def lose(self) -> dict[str, int]:
        """Take power away; bytes lost by source."""
        lost: dict[str, int] = self.ask({"do": "lose"})
        return lost

    def ask(self, asked: dict[str, object]) -> Any:  # noqa: ANN401 - one answer for each verb
        """Ask one thing and wait for the answer.

        Raises:
            ValueError: it was refused; says why.
        """
        self._asks.write(json.dumps(asked) + "\n")
        self._asks.flush()
        answer = self._answer()
        if "error" in answer:
            raise ValueError(answer["error"]["message"])
        return answer["ok"]

    def resident_mib(self) -> float:
        """Memory that it has to itself."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(rollup.partition("\nPss:")[2].split()[0]) / 1024

    def descriptors(self) -> int:
        """Count the descriptors that it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            self.process.wait(timeout=10)
            raise RuntimeError(f"squall-node filter ended with {self.process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def until(holds: Callable[[], object], seconds: float = 5) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: it did not come to be.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come to be")
        time.sleep(0.005)
