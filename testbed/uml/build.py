"""Build a user-mode kernel from Debian's kernel source, once for each source and configuration.

Run it as `python -m testbed.uml.build [JOBS]`; it prints where the kernel is.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CONFIG = Path(__file__).with_name("kernel.config")
PACKAGE = "linux-source-6.1"
SOURCE = Path(f"/usr/src/{PACKAGE}.tar.xz")
PROGRAMS = ("make", "gcc", "flex", "bison", "bc", "tar", "xz")
LIBELF = Path("/usr/include/libelf.h")
SCRATCH_BYTES = 3 << 30
"""An unpacked and built source takes 1.9 GB."""


def kernel(jobs: int = 0) -> Path:
    """Build the kernel unless that was done before, and return its path.

    Args:
        jobs: compilers at work at a time; 0 means one for each processor.

    Raises:
        RuntimeError: something is missing, or the build failed; says what to do.
    """
    program = _cache() / f"linux-{_fingerprint()}" / "linux"
    if not program.exists():
        _cache().mkdir(parents=True, exist_ok=True)
        with (_cache() / "linux.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second build would only slow the first down
            if not program.exists():
                _build(program.parent, jobs or os.cpu_count() or 1)
    return program


def unset(wanted: str, got: str) -> list[str]:
    """List the options of one configuration that did not make it into another.

    The configuration tool drops in silence what it does not know, or what depends on others.
    """
    have = set(got.splitlines())
    return [line for line in wanted.splitlines() if line.startswith("CONFIG_") and line not in have]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "squall"


def _fingerprint() -> str:
    """Tell one kernel from another: by its configuration and the version of its source."""
    asked = ["dpkg-query", "--show", "--showformat=${Version}", PACKAGE]
    version = subprocess.run(asked, capture_output=True, check=False).stdout
    return hashlib.sha256(version + b"\n" + CONFIG.read_bytes()).hexdigest()[:16]


def _missing() -> Iterator[str]:
    yield from (program for program in PROGRAMS if shutil.which(program) is None)
    if not LIBELF.exists():
        yield "libelf-dev"
    if not SOURCE.exists():
        yield PACKAGE


def _build(folder: Path, jobs: int) -> None:
    """Build into a folder beside the final one and rename it, so that no half is ever found."""
    if missing := " ".join(_missing()):
        raise RuntimeError(f"a kernel cannot be built without: {missing}; run testbed/system.sh")
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"kernel: {what} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as scratch:
        if (free := shutil.disk_usage(scratch).free) < SCRATCH_BYTES:
            raise RuntimeError(f"{scratch} has {free >> 20} MiB free; a build takes 3 GiB")
        say(f"unpacking {SOURCE}")
        _run(
            "tar", "--extract", f"--file={SOURCE}", "--strip-components=1", f"--directory={scratch}"
        )
        say("configuring")
        make = ("make", f"--directory={scratch}", "ARCH=um", "--silent", f"--jobs={jobs}")
        _run(*make, f"KCONFIG_ALLCONFIG={CONFIG}", "allnoconfig")
        if lost := unset(CONFIG.read_text(), Path(scratch, ".config").read_text()):
            raise RuntimeError(f"{PACKAGE} would be built without {' '.join(lost)}: see {CONFIG}")
        say(f"compiling, {jobs} at a time; this takes minutes, once")
        _run(*make, "linux")
        made = Path(scratch, "made")
        made.mkdir(mode=0o755)
        Path(scratch, "linux").rename(made / "linux")
        made.rename(folder)
    say(f"built: {folder}")


def _run(*command: str) -> None:
    """Run one step; what it says is shown when it fails."""
    done = subprocess.run(
        ("nice", *command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if done.returncode:
        said = "\n".join(done.stdout.splitlines()[-30:])
        raise RuntimeError(f"{' '.join(command)} failed:\n{said}")


if __name__ == "__main__":
    print(kernel(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
