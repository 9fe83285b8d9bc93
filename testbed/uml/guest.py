"""Process 1 of a user-mode kernel: makes it a usable machine, runs one command, and ends it.

It is a program of its own for a bare interpreter; `testbed.uml.run` copies it into the folder of
the machine, beside `spec.json`, and reads the file `status` that it leaves there.
"""

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

NOT_STARTED, NOT_FOUND = 125, 127
_POWER_OFF = 0x4321FEDC
_BIND = 0x1000
_SET_FLAGS, _UP = 0x8914, 1  # SIOCSIFFLAGS, IFF_UP
_MOUNTS = (
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", "ptmxmode=666"),
    ("tmpfs", "/dev/shm", ""),  # noqa: S108
    ("tmpfs", "/tmp", ""),  # noqa: S108
    ("tmpfs", "/run", "mode=755"),
    ("bpf", "/sys/fs/bpf", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
)
_OF_THE_GUEST = ("/dev/", "/tmp/", "/run/")  # noqa: S108

_libc = ctypes.CDLL(None, use_errno=True)


class Spec(TypedDict):
    """What the host asks for."""

    command: list[str]
    folder: str
    """Where the command starts."""
    environment: dict[str, str]
    keep: list[str]
    """Folders of the host below /tmp, /run or /dev that are to be seen nevertheless."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The way of one output stream to the host: a pipe, whose end is copied to a console."""

    inlet: int
    console: int
    copying: threading.Thread

    @classmethod
    def to(cls, console: str) -> "Stream":
        """Open a console, raw."""
        opened = os.open(console, os.O_RDWR | os.O_NOCTTY)
        mode = termios.tcgetattr(opened)
        mode[0], mode[1], mode[3] = 0, 0, 0  # what comes, goes and is typed: nothing is changed
        termios.tcsetattr(opened, termios.TCSANOW, mode)
        outlet, inlet = os.pipe()
        copying = threading.Thread(target=_copy, args=(outlet, opened), daemon=True)
        copying.start()
        return cls(inlet, opened, copying)

    def drain(self) -> None:
        """Wait until the host has everything; nobody else may have the inlet open."""
        os.close(self.inlet)
        self.copying.join()
        termios.tcdrain(self.console)


def main() -> None:
    """Be process 1."""
    here = Path(sys.argv[0]).parent
    spec: Spec = json.loads((here / "spec.json").read_text())
    folder = os.open(here, os.O_RDONLY)  # /tmp is about to be another one
    _furnish(spec["keep"])
    out, err = Stream.to("/dev/tty1"), Stream.to("/dev/tty2")
    status = _run(spec, out, err)
    _be_process_1()
    _libc.kill(-1, signal.SIGKILL)
    for stream in (out, err):
        stream.drain()
    left = os.open("status", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=folder)
    os.write(left, str(status if status >= 0 else 128 - status).encode())
    os.sync()
    _be_process_1()
    _libc.reboot(_POWER_OFF)


def _be_process_1() -> None:
    """Go no further as a process of the host: what follows would end every process there."""
    if os.getpid() != 1:
        os._exit(NOT_STARTED)


def _furnish(keep: Sequence[str]) -> None:
    """Mount what a machine has, over the files of the host."""
    kept = [(path, os.open(path, os.O_PATH)) for path in keep]
    for kind, where, options in _MOUNTS:
        _mount(kind, kind, where, options=options)
    for path, opened in kept:
        _mount(f"/proc/self/fd/{opened}", "none", path, _BIND)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        Path("/dev", name).symlink_to(f"/proc/self/fd{target}")
    cgroups = Path("/sys/fs/cgroup")
    controllers = (cgroups / "cgroup.controllers").read_text().split()
    (cgroups / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        fcntl.ioctl(asking, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))


def _mount(source: str, kind: str, where: str, flags: int = 0, options: str = "") -> None:
    if where.startswith(_OF_THE_GUEST):
        Path(where).mkdir(parents=True, exist_ok=True)
    names = (name.encode() for name in (source, where, kind))
    if _libc.mount(*names, ctypes.c_ulong(flags), options.encode() or None):
        raise OSError(ctypes.get_errno(), f"mounting {kind} on {where}")


def _run(spec: Spec, out: Stream, err: Stream) -> int:
    """Run the command to its end, and reap whatever else ends meanwhile."""
    try:
        child = subprocess.Popen(
            spec["command"],
            cwd=spec["folder"],
            env=spec["environment"],
            stdin=subprocess.DEVNULL,
            stdout=out.inlet,
            stderr=err.inlet,
            start_new_session=True,
        )
    except OSError as failure:
        os.write(err.inlet, f"guest: {failure}\n".encode())
        return NOT_FOUND
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


def _copy(source: int, target: int) -> None:
    while chunk := os.read(source, 1 << 16):
        while chunk:
            chunk = chunk[os.write(target, chunk) :]


if __name__ == "__main__":
    _be_process_1()
    main()
