"""Build kubectl and kube-apiserver from Kubernetes' Go modules, once for each user and version.

Run it as `python -m testbed.kubernetes`; it prints the folder that holds the programs.
Only the Go module proxy is asked; nothing prebuilt is downloaded.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

MODULE = Path(__file__).parent
"""The Go module: main.go says which components the one program can be."""

SOURCES = ("main.go", "go.mod", "go.sum")


@cache
def programs() -> Path:
    """Build the programs unless that was done before, and return their folder.

    Raises:
        RuntimeError: Go is missing, or the build failed; says what to do.
    """
    go, folder = _go(), built_folder()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "kubernetes.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second build would only slow the first down
            if not folder.is_dir():
                _build(go, folder)
    return folder


def built_folder() -> Path:
    """Say where the programs are, or will be once they are built.

    Raises:
        RuntimeError: Go is missing.
    """
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache_home / "squall" / f"kubernetes-{_fingerprint(_go())}"


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise RuntimeError("go is not on PATH; install Go 1.24 or newer (go.dev/dl)")
    return go


def _fingerprint(go: str) -> str:
    """Tell one program from another: its sources, the compiler and how it is called."""
    version = subprocess.run([go, "version"], check=True, capture_output=True).stdout
    digest = hashlib.sha256(version + _linker_flags().encode())
    for name in SOURCES:
        digest.update((MODULE / name).read_bytes())
    return digest.hexdigest()[:16]


def _build(go: str, folder: Path) -> None:
    """Build into a folder beside the final one and rename it, so that no half is ever found."""
    print("building kubectl and kube-apiserver (minutes, once) ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as scratch:
        made = Path(scratch, "bin")
        made.mkdir(mode=0o755)
        program = made / "kubernetes"
        command = ["nice", go, "build", "-trimpath", "-ldflags", _linker_flags(), "-o", program]
        done = subprocess.run([*command, "."], cwd=MODULE, env=_environment(), check=False)
        if done.returncode:
            raise RuntimeError(
                "Kubernetes was not built: see the messages above; a first build needs the Go"
                " module proxy (`go env GOPROXY`) and 6 GB of disk"
            )
        for name in components():
            (made / name).symlink_to(program.name)
        made.rename(folder)
    size = (folder / "kubernetes").stat().st_size >> 20
    print(f"built in {time.monotonic() - began:.0f} s: {size} MiB in {folder}", file=sys.stderr)


def components() -> list[str]:
    """Read from main.go what the program can be called as."""
    return re.findall(r'^\t"([a-z-]+)":', (MODULE / "main.go").read_text(), re.MULTILINE)


def _linker_flags() -> str:
    """No symbols, and the version that `kubectl version` and `/version` report."""
    found = re.search(r"^\tk8s\.io/kubernetes (v(\d+)\.(\d+)\S*)$", _module_file(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{MODULE / 'go.mod'} requires no k8s.io/kubernetes")
    stamps = {"gitVersion": found[1], "gitMajor": found[2], "gitMinor": found[3]}
    stamp = "k8s.io/component-base/version."
    return " ".join(["-s -w", *(f"-X {stamp}{name}={value}" for name, value in stamps.items())])


def _module_file() -> str:
    return (MODULE / "go.mod").read_text()


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
