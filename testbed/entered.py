"""Programs whose files are faulted while they run, and the process that does it, for tests."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

NODE = str(Path(sys.executable).with_name("squall-node"))

_LOOP = """
import collections, ctypes, fcntl, mmap, os, signal, socket, sqlite3, struct, subprocess, sys
import threading, time
names = globals()
d = sys.argv[1] + '/'
for line in sys.stdin:
    text = line.rstrip().replace('\\\\n', '\\n')
    try:
        answer = eval(text, names)
    except SyntaxError:
        answer = exec(text, names)
    except OSError as error:
        answer = error
    print(repr(answer), flush=True)
"""


class Program:
    """Python in a mount namespace of its own, that does what it is told line by line."""

    def __init__(
        self,
        directory: Path,
        *,
        propagation: str = "private",
        wrapper: Sequence[str] = (),
        more: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        command = ["unshare", "--mount", f"--propagation={propagation}", *more, *wrapper]
        self._process = subprocess.Popen(
            [*command, "/usr/bin/python3", "-u", "-c", _LOOP, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._in = cast("IO[str]", self._process.stdin)
        self._out = cast("IO[str]", self._process.stdout)
        self.pid = int(self.ask("os.getpid()")) if "--fork" not in more else self._child()

    def ask(self, line: str) -> str:
        """Evaluate, or execute, a line of Python; an OSError is an answer."""
        self.say(line)
        return self.hear()

    def say(self, line: str) -> None:
        """The same, without waiting for the answer."""
        self._in.write(line.replace("\n", "\\n") + "\n")
        self._in.flush()

    def hear(self) -> str:
        """Wait for an answer."""
        return self._out.readline().rstrip()

    def mounts(self) -> list[str]:
        """Mounts of ours that it sees."""
        lines = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        return [line for line in lines if " - fuse.squall squall-files " in line]

    def picture(self) -> dict[str, Any]:
        """All that has to be the same again afterwards."""
        of = Path(f"/proc/{self.pid}")
        maps = (of / "maps").read_text().splitlines()
        mounts = (of / "mountinfo").read_text().splitlines()
        open_files = {
            int(link.name): (str(link.readlink()), (of / "fdinfo" / link.name).read_text())
            for link in (of / "fd").iterdir()
        }
        return {
            "fd": open_files,
            "maps": [line for line in maps if "/" in line],
            # A namespace's file may be removed by whoever made it, and its mounts go everywhere.
            "mountinfo": [line for line in mounts if " - nsfs " not in line],
            "cwd": str((of / "cwd").readlink()),
            "limits": (of / "limits").read_text(),
        }

    def end(self) -> None:
        """Kill it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        self._process.kill()
        self._process.wait()
        for stream in (self._in, self._out):
            with suppress(OSError):
                stream.close()

    def _child(self) -> int:
        self.ask("1")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return int(children.read_text().split()[0])


class Faults:
    """A `squall-node files` process, as an agent has one."""

    def __init__(
        self, program: Program, path: Path, *, lease: float = 30.0, node: str = NODE
    ) -> None:
        self._path, self._asked = path, 0
        self.log = path.with_suffix(".log")
        stat = Path(f"/proc/{program.pid}/stat").read_text()
        started = stat.rsplit(") ", 1)[1].split(" ")[19]
        command = [node, "files", "--pid", str(program.pid), "--started", started]
        with self.log.open("w") as log:
            subprocess.run(
                [*command, "--socket", str(path), "--lease", str(lease)], check=True, stderr=log
            )
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rw")

    def ask(self, verb: str, **arguments: object) -> Mapping[str, Any]:
        """Ask for something, and give the answer, be it an error."""
        self._asked += 1
        self._lines.write(json.dumps({"id": self._asked, "do": verb, **arguments}) + "\n")
        self._lines.flush()
        answer: dict[str, Any] = json.loads(self._lines.readline())
        return answer

    def set(
        self, *volumes: Mapping[str, Any], lease: float = 30.0, deadline: float | None = None
    ) -> Mapping[str, Any]:
        """Ask for volumes."""
        return self.ask("set", volumes=volumes, lease=lease, deadline=deadline)

    def processes(self) -> list[int]:
        """The filter's, and its guardian's."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if str(self._path).encode() in words:
                    found.append(int(entry.name))
        return sorted(found)

    def close(self) -> None:
        """Go away, as an agent that dies."""
        with suppress(OSError):
            self._lines.close()
        self._socket.close()


def volume(path: Path | str, /, **rule: object) -> dict[str, Any]:
    """One volume with one rule."""
    return {"path": str(path), "rules": [{"source": "test", **rule}]}


def wait(condition: Callable[[], object], *, within: float = 10.0) -> float:
    """Wait until something is so; gives the seconds that took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within:
            raise TimeoutError(f"not so within {within:g} s")
        time.sleep(0.01)
    return time.monotonic() - began
