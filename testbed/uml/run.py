"""Run a command as root in user-mode Linux, on the host's own files.

`python -m testbed.uml.run [--timeout SECONDS] COMMAND...`

What the command writes outside /tmp, /run and /dev stays on the host's disk. Its standard input is
empty. The machine has one processor, and is pinned to one of the host: across two, each system
call of the guest takes eight times as long.

DANGER: processes of the guest are processes of the host under ptrace, and root there. Were the
machine killed, they would run on natively, and process 1 of the guest ends its machine with
kill(-1). Never start such a kernel but through here, where each of these holds by itself:
`shim.c` has the host end them with their tracer; the machine is process 1 of a PID namespace, so
that nothing in it outlives the machine or can signal anybody outside; `guest.py` looks whether it
is process 1 before it kills. The machine ends with this process, however that ends.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from testbed.uml.build import kernel

TIMED_OUT, NOT_STARTED = 124, 125
"""Exit statuses of our own; 127: there is no such command; 128+N: signal N ended it."""

_HERE = Path(__file__).parent
_PASSED_ON = ("PATH", "HOME", "LANG")
_HIDDEN = ("/tmp/", "/run/", "/dev/shm/")  # noqa: S108
"""What the guest has of its own."""
_DRAIN_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_DOWN_SECONDS = 5.0
"""For a kernel that has nothing left to do but to end itself."""


def run(
    command: Sequence[str],
    *,
    timeout_seconds: float,
    environment: Mapping[str, str] | None = None,
    memory: str = "1G",
    program: Path | None = None,
) -> int:
    """Run a command in a machine of its own and return its exit status, as a shell would tell it.

    Its output goes to this process's, as it comes. The calling thread must live until it returns.

    Args:
        command: a program and its arguments; starts in the current directory.
        timeout_seconds: after which the machine is killed, with `TIMED_OUT`.
        environment: in addition to PATH, HOME and LANG.
        memory: of the machine, as the kernel reads sizes.
        program: the kernel; `testbed.uml.build` makes it where none is named.

    Raises:
        RuntimeError: the machine cannot be built or started safely; says what to do.
    """
    if os.geteuid():
        raise RuntimeError("user-mode Linux is contained by a PID namespace: run this as root")
    program = program or kernel()
    with tempfile.TemporaryDirectory(prefix="uml-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _write(folder, command, environment or {})
        with _pumped(1) as out, _pumped(2) as err, (folder / "log").open("wb") as log:
            machine = subprocess.Popen(
                [*_contained(), str(program), *_parameters(folder, memory, out, err)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment_of_the_machine(folder),
                pass_fds=(out, err),
                process_group=0,
            )
            try:
                if not _ends(machine, folder / "status", timeout_seconds):
                    print(f"uml: killed after {timeout_seconds:g} s", file=sys.stderr)
                    return TIMED_OUT
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(machine.pid, signal.SIGKILL)
                machine.wait()
        with suppress(FileNotFoundError):
            return int((folder / "status").read_text())
        said = (folder / "log").read_text(errors="replace")
        print(f"uml: the machine ended early; its log:\n{said}", file=sys.stderr)
        return NOT_STARTED


def _ends(machine: subprocess.Popen[bytes], status: Path, timeout_seconds: float) -> bool:
    """Wait until a machine has done what it was for: the kernel may hang while it goes down."""
    ends = time.monotonic() + timeout_seconds
    while (now := time.monotonic()) < ends:
        if status.exists():  # all that was said has been passed on before
            ends = min(ends, now + _DOWN_SECONDS)
        with suppress(subprocess.TimeoutExpired):
            machine.wait(min(_LOOK_SECONDS, ends - now))
            return True
    return status.exists()


def _contained() -> Sequence[str]:
    """Say what to start the machine with: it is to end with us, on one processor, by itself."""
    processors = sorted(os.sched_getaffinity(0))
    one = processors[os.getpid() % len(processors)]
    return (
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("taskset", "--cpu-list", str(one)),
        *("unshare", "--pid", "--fork", "--kill-child=KILL", "--"),
    )


def _parameters(folder: Path, memory: str, out: int, err: int) -> Sequence[str]:
    return (
        f"mem={memory}",
        *("rootfstype=hostfs", "rootflags=/", "rw"),
        f"init={folder}/init",
        *("quiet", "noreboot", "panic=-1"),
        *(f"uml_dir={folder}/", "umid=machine"),
        *("con=null", "con0=null,fd:2", f"con1=null,fd:{out}", f"con2=null,fd:{err}"),
    )


def _environment_of_the_machine(folder: Path) -> Mapping[str, str]:
    """Have its memory in memory, and the shim in its process."""
    place = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}  # noqa: S108
    return {**os.environ, **place, "LD_PRELOAD": f"{folder}/shim.so"}


def _write(folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Write what the machine needs: the shim, its first program, and what that shall do."""
    shim = ["cc", "-O2", "-shared", "-fPIC", "-o", f"{folder}/shim.so", f"{_HERE}/shim.c"]
    if subprocess.run(shim, check=False).returncode:
        raise RuntimeError("the shim was not compiled, and without it no machine is started")
    here = os.path.realpath(Path.cwd())
    needed = {here, *(os.path.realpath(path) for path in (sys.prefix, sys.base_prefix))}
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    spec = {
        "command": list(command),
        "folder": here,
        "environment": {**passed, **environment},
        "keep": sorted(path for path in needed if path.startswith(_HIDDEN)),
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    init = folder / "init"
    interpreter = os.path.realpath(sys.executable)
    init.write_text(f"#!{interpreter} -ISu\n{(_HERE / 'guest.py').read_text()}")
    init.chmod(0o755)


@contextmanager
def _pumped(target: int) -> Iterator[int]:
    """Give the inlet of a pipe to a descriptor of ours: a machine changes the modes of its own."""
    outlet, inlet = os.pipe()

    def copy() -> None:
        while chunk := os.read(outlet, 1 << 16):
            while chunk:
                chunk = chunk[os.write(target, chunk) :]
        os.close(outlet)

    pump = threading.Thread(target=copy, daemon=True)
    pump.start()
    try:
        yield inlet
    finally:
        os.close(inlet)
        pump.join(_DRAIN_SECONDS)


def main() -> int:
    """Be the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.uml.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument("--memory", default="1G")
    parser.add_argument("--kernel", type=Path, help="instead of the one that is built")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    if not asked.command:
        parser.error("no COMMAND")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda got, _: sys.exit(128 + got))
    return run(
        asked.command,
        timeout_seconds=asked.timeout,
        memory=asked.memory,
        program=asked.kernel,
    )


if __name__ == "__main__":
    sys.exit(main())
