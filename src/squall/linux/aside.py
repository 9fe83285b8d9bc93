"""How an agent in a container sees the cgroups of its host, and where what outlives it stands."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from squall.errors import Unsupported
from squall.linux.cgroups import mounts
from squall.linux.processes import PROC

PLACE = "SQUALL_CGROUP"
"""Environment variable of `squall-node`: the cgroup, at the root of every hierarchy, in which its
holders and watchers stand. Whoever ends a container kills what is in the container's own."""
_CLONE_NEWCGROUP = 0x02000000
"""From linux/sched.h."""
_libc = ctypes.CDLL(None, use_errno=True)


def see_every_cgroup() -> None:
    """Leave the cgroup namespace of a container, so that paths are those of the host.

    For this thread and all that it starts; call it before any other thread runs. The first process
    that is seen tells the namespace: in the PID namespace of the host, that is the host's.

    Raises:
        Unsupported: it may not; paths of targets would lead nowhere.
    """
    if not _outside((PROC / "1/cgroup").read_text()):
        return
    theirs = PROC / "1/ns/cgroup"
    try:
        with theirs.open() as namespace:
            if _libc.setns(namespace.fileno(), _CLONE_NEWCGROUP):
                code = ctypes.get_errno()
                raise PermissionError(code, os.strerror(code))
    except OSError as refused:
        why = f"the cgroups of the host cannot be seen: {theirs}: {refused.strerror}"
        raise Unsupported(f"{why}; grant CAP_SYS_ADMIN and CAP_SYS_PTRACE") from refused


def _outside(cgroup: str) -> bool:
    """Is a process outside of our cgroup namespace? cgroup_namespaces(7).

    Args:
        cgroup: content of its /proc/PID/cgroup.
    """
    return any(line.split(":", 2)[-1].startswith("/..") for line in cgroup.splitlines())


def stand_aside(name: str) -> None:
    """Have every holder and watcher that is started from now on stand in a cgroup of that name."""
    os.environ[PLACE] = name


def tidy_aside(name: str) -> None:
    """Remove that cgroup where nobody stands in it any more."""
    for mount in mounts((PROC / "self/mountinfo").read_text()):
        with suppress(OSError):
            Path(mount.point, name).rmdir()
