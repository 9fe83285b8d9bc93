"""The images that every node has: the pause container's, and busybox."""

import shutil
import tempfile
from pathlib import Path

from testbed.cluster import archive
from testbed.cluster.layout import Node
from testbed.cluster.namespaces import run
from testbed.cluster.nodes import PAUSE

BUSYBOX = "registry.local/busybox:1"
"""Debian's static busybox: shell, httpd, wget, nc; it crashes when it looks up a name."""


def write(folder: Path) -> list[Path]:
    """Write the archives of both into a folder."""
    return [_pause(folder), _busybox(folder)]


def load(node: Node, image: Path) -> None:
    """Import a docker-archive on a node."""
    control = ["ctr", f"--address={node.socket}", "--namespace=k8s.io"]
    run(*control, "images", "import", str(image))


def _pause(folder: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=folder) as root:
        source = Path(__file__).with_name("pause.c")
        run("gcc", "-static", "-Os", "-s", "-o", f"{root}/pause", str(source))
        archive.write(folder / "pause.tar", PAUSE, Path(root), entrypoint=["/pause"])
    return folder / "pause.tar"


def _busybox(folder: Path) -> Path:
    program = shutil.which("busybox")
    if program is None:
        raise RuntimeError("no busybox on PATH (Debian: busybox-static)")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        root = Path(scratch)
        for name in ("bin", "etc", "proc", "sys", "tmp", "var", "www"):
            (root / name).mkdir()
        shutil.copy(program, root / "bin/busybox")
        for applet in run(program, "--list").split():
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        archive.write(folder / "busybox.tar", BUSYBOX, root, command=["/bin/sh"])
    return folder / "busybox.tar"
