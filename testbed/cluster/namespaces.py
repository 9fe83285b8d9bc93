"""Namespaces of a cluster: networks of all its parts, and for each node a view of the file system.

A node sees this machine's files, but has folders of its own where two kubelets would get into
each other's way. What it mounts for its pods is mounted nowhere else, and vanishes with it.
"""

import json
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from testbed.cluster.layout import RUN, Layout, Node

OWN_FOLDERS = (
    "/run/containerd",
    "/run/netns",
    "/run/squall",
    "/var/lib/kubelet",
    "/var/lib/squall",
    "/var/log/containers",
)
"""What each node has for itself: components keep files there that no option moves."""

_MOUNT_POINTS = RUN / "mount-points.json"


def run(*command: str, stdin: str = "") -> str:
    """Run a command and return what it prints; raises `RuntimeError` with its complaint."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        complaint = done.stderr.strip() or done.stdout.strip()
        raise RuntimeError(f"{' '.join(command)}: {complaint}")
    return done.stdout


def inside(net: Path, *command: str, mounts: Path | None = None) -> list[str]:
    """Say how to run a command in a network, and in a node's view of the file system."""
    view = [f"--mount={mounts}"] if mounts is not None else []
    return ["nsenter", f"--net={net}", *view, "--", *command]


def make(layout: Layout) -> None:
    """Make all namespaces of a cluster; each is held by a file, and needs no process."""
    layout.pins.mkdir()
    run("mount", "--bind", str(layout.pins), str(layout.pins))
    run("mount", "--make-private", str(layout.pins))  # what holds a view must not come into it
    for file in (layout.net, *(node.net for node in layout.nodes)):
        file.touch()
        run("unshare", f"--net={file}", "true")
    _make_mount_points()
    for node in layout.nodes:
        _make_view(node)


def remove(layout: Layout) -> None:
    """Let go of all namespaces; what they are made of goes with their last process."""
    if layout.pins.is_dir():
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = Path(line.split()[4])
            if layout.pins in {point, point.parent}:
                run("umount", "--lazy", str(point))


def remove_mount_points() -> None:
    """Remove the folders that were made for all clusters; call it when none is left."""
    with suppress(OSError):
        for path in json.loads(_MOUNT_POINTS.read_text()):
            with suppress(OSError):  # somebody else uses it now
                Path(path).rmdir()
        _MOUNT_POINTS.unlink()


def own_folder(node: Node, path: str) -> Path:
    """Say where on this machine a node's own folder is."""
    return node.folder / "own" / path.strip("/").replace("/", "-")


def on_host(node: Node, path: Path) -> Path:
    """Say where on this machine a file is that a node sees at that path."""
    for own in OWN_FOLDERS:
        if path.is_relative_to(own):
            return own_folder(node, own) / path.relative_to(own)
    return path


def _make_view(node: Node) -> None:
    node.view.touch()
    steps = [
        # What others hold must be let go when they let go of it.
        f'for each in {RUN}/*/pins; do umount --recursive --lazy "$each" || true; done',
        "mount --make-rshared /",
    ]
    for path in OWN_FOLDERS:
        source = own_folder(node, path)
        source.mkdir(parents=True)
        steps.append(f"mount --bind {source} {path}")
    script = "\n".join(steps)
    run("unshare", f"--mount={node.view}", "--propagation=slave", "sh", "-euc", script)


def _make_mount_points() -> None:
    made: Sequence[str] = ()
    with suppress(OSError):
        made = json.loads(_MOUNT_POINTS.read_text())
    lacking = [path for path in OWN_FOLDERS if not Path(path).is_dir()]
    _MOUNT_POINTS.write_text(json.dumps([*made, *lacking]))
    for path in lacking:
        Path(path).mkdir(parents=True)
