"""A program with files open, in a mount namespace of its own, that does what it is told.

Told by lines on standard input, each of them Python, with `os` and `mmap` at hand; it answers each
with a line of JSON: what came of it, the number of the error, and how many milliseconds it took.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squall.injection.world.target import Target
from squall.linux.processes import started

_PROGRAM = """
import json, mmap, os, sys, time
names = {"os": os, "mmap": mmap}
print("ready", flush=True)
for line in sys.stdin:
    value, error, begun = None, 0, time.perf_counter()
    try:
        try:
            code = compile(line.strip(), "told", "eval")
        except SyntaxError:
            exec(line.strip(), names)
        else:
            value = eval(code, names)
    except OSError as failed:
        error = failed.errno
    spent = (time.perf_counter() - begun) * 1000
    if isinstance(value, (bytes, bytearray)):
        value = bytes(value).decode("latin-1")
    print(json.dumps([value, error, spent], default=str), flush=True)
"""


@dataclass(frozen=True)
class Done:
    """What came of one line."""

    value: Any
    errno: int
    ms: float


@dataclass
class Clerk:
    """The program, its directory, and it as a target."""

    target: Target
    data: Path
    """Seen by us beside it: what is really there."""
    process: subprocess.Popen[str]

    def do(self, line: str) -> Done:
        """Have it do something, and wait."""
        self.tell(line)
        return self.answer()

    def tell(self, line: str) -> None:
        """Have it do something without waiting."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> Done:
        """Wait for what came of it."""
        assert self.process.stdout
        return Done(*json.loads(self.process.stdout.readline()))

    def mounts(self) -> list[str]:
        """List its mounts, without what numbers them."""
        lines = Path(f"/proc/{self.target.pid}/mountinfo").read_text().splitlines()
        return [line.split(" ", 3)[3] for line in lines]

    def handles(self) -> dict[str, str]:
        """Tell where its descriptors, its directory and its mapped files lead."""
        proc = Path(f"/proc/{self.target.pid}")
        found = {one.name: str(one.readlink()) for one in (proc / "fd").iterdir()}
        found["cwd"] = str((proc / "cwd").readlink())
        mapped = {line.split(maxsplit=5)[-1] for line in (proc / "maps").read_text().splitlines()}
        return found | {"mapped": str(sorted(name for name in mapped if name.startswith("/")))}


@contextmanager
def clerk(data: Path, name: str = "d/web/app") -> Iterator[Clerk]:
    """Start one with a directory, and end it.

    Args:
        data: the directory; made if missing.
        name: of the target.
    """
    data.mkdir(exist_ok=True)
    command = ("unshare", "--mount", "--propagation", "private", "--", sys.executable, "-I", "-c")
    process = subprocess.Popen(
        (*command, _PROGRAM), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        ticks = started(process.pid) or 0
        yield Clerk(Target(name, "uid", "", process.pid, ticks), data, process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
