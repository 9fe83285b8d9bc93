"""Take a cluster away, whether it runs or crashed: afterwards nothing of it is left."""

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from testbed.cluster import namespaces, network, records
from testbed.cluster.layout import RUN, Layout, hierarchies
from testbed.cluster.processes import Processes, end

GRACE_SECONDS = 5.0
KILL_SECONDS = 10.0


def remove(layout: Layout) -> None:
    """End all processes, then take away mounts, namespaces, cgroups and folders.

    Raises:
        RuntimeError: a process or a cgroup would not go.
    """
    processes = Processes(layout)
    # A kubelet that lives would start again what is ended here.
    _end(processes, [f"{node.name}-{part}" for node in layout.nodes for part in _NODE_ORDER])
    _kill(processes, layout)
    network.remove(layout)
    namespaces.remove(layout)
    _remove_cgroups(layout)
    shutil.rmtree(layout.memory, ignore_errors=True)
    shutil.rmtree(layout.folder)
    if not records.everything():
        namespaces.remove_mount_points()
        RUN.rmdir()


_NODE_ORDER = ("kubelet", "kube-proxy")


def _end(processes: Processes, names: list[str]) -> None:
    found = [process for name in names if (process := processes.find(name)) is not None]
    end(found, GRACE_SECONDS)


def _kill(processes: Processes, layout: Layout) -> None:
    deadline = time.monotonic() + KILL_SECONDS
    while left := list(processes.all()):
        if time.monotonic() > deadline:
            pids = " ".join(str(process.pid) for process in left)
            raise RuntimeError(f"processes of {layout.name} do not end: {pids}")
        for process in left:  # a frozen one dies too: SIGKILL goes through the v1 freezer ...
            process.send(signal.SIGKILL)
        _thaw(layout)  # ... only once it is thawed
        for process in left:
            process.wait(1.0)


def _thaw(layout: Layout) -> None:
    for root in hierarchies():
        if root.name == "freezer":
            for folder, _, _ in os.walk(root / layout.cgroup):
                with suppress(OSError):
                    (Path(folder) / "freezer.state").write_text("THAWED")


def _remove_cgroups(layout: Layout) -> None:
    deadline = time.monotonic() + KILL_SECONDS
    for root in hierarchies():
        for folder, _, _ in os.walk(root / layout.cgroup, topdown=False):
            while True:
                try:
                    Path(folder).rmdir()
                    break
                except OSError as refused:  # busy for a moment after its last process died
                    if time.monotonic() > deadline:
                        raise RuntimeError(f"{folder} stays: {refused}") from refused
                    time.sleep(0.02)
