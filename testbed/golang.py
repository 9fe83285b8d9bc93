"""Programs from Go modules that testbed keeps: built once for each user and version.

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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SOURCES = ("main.go", "go.mod", "go.sum")


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module of one program."""

    folder: Path
    """Where go.mod is."""
    name: str
    """Of the program."""
    package: str = "."
    """What is built: the module itself, or a program of one that it requires."""
    stamps: Mapping[str, str] = field(default_factory=dict)
    """String variables that the linker sets: by full name."""
    aliases: tuple[str, ...] = ()
    """What else the program is called as."""

    def build(self) -> Path:
        """Build the program unless that was done before, and return the folder it is in.

        Raises:
            RuntimeError: Go is missing, or the build failed; says what to do.
        """
        go, folder = _go(), self.built()
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with (folder.parent / f"{self.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # a second build would only slow the first down
                if not folder.is_dir():
                    self._build(go, folder)
        return folder

    def built(self) -> Path:
        """Say in which folder the program is, or will be once it is built.

        Raises:
            RuntimeError: Go is missing.
        """
        cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache_home / "squall" / f"{self.name}-{self._fingerprint(_go())}"

    def required(self, module: str) -> str:
        """Read which version of a module go.mod requires, as v1.2.3.

        Raises:
            RuntimeError: it requires none.
        """
        pattern = rf"^(?:require )?\s*{re.escape(module)} (v\S+)"
        found = re.search(pattern, (self.folder / "go.mod").read_text(), re.MULTILINE)
        if found is None:
            raise RuntimeError(f"{self.folder / 'go.mod'} requires no {module}")
        return found[1]

    def _fingerprint(self, go: str) -> str:
        """Tell one program from another: its sources, the compiler and how it is called."""
        version = subprocess.run([go, "version"], check=True, capture_output=True).stdout
        digest = hashlib.sha256(version + self._linker_flags().encode())
        for name in SOURCES:
            if (self.folder / name).exists():
                digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()[:16]

    def _build(self, go: str, folder: Path) -> None:
        """Build into a folder beside the final one and rename it, so that no half is ever found."""
        print(f"building {self.name} (minutes, once) ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as scratch:
            made = Path(scratch, "bin")
            made.mkdir(mode=0o755)
            program = made / self.name
            flags = ["-trimpath", "-ldflags", self._linker_flags()]
            command = ["nice", go, "build", *flags, "-o", str(program), self.package]
            done = subprocess.run(command, cwd=self.folder, env=_environment(), check=False)
            if done.returncode:
                raise RuntimeError(
                    f"{self.name} was not built: see the messages above; a first build needs the"
                    " Go module proxy (`go env GOPROXY`) and 6 GB of disk"
                )
            for alias in self.aliases:
                (made / alias).symlink_to(program.name)
            made.rename(folder)
        size = (folder / self.name).stat().st_size >> 20
        print(f"built in {time.monotonic() - began:.0f} s: {size} MiB in {folder}", file=sys.stderr)

    def _linker_flags(self) -> str:
        """No symbols, and what the program says of its version."""
        return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in self.stamps.items())])


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise RuntimeError("go is not on PATH; install Go 1.24 or newer (go.dev/dl)")
    return go


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
