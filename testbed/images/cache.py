"""Where images and their parts are kept, each under the fingerprint of what it was made from."""

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

KEPT = 3
"""Generations of each part: switching between two branches builds nothing twice."""


def cache_folder() -> Path:
    """Say where this user's images are kept."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "squall" / "images"


def kept(name: str, fingerprint: str, make: Callable[[Path], None]) -> Path:
    """Return the file or folder of this name and fingerprint; make it if nobody has before.

    Args:
        name: what it is; older ones of the same name go.
        fingerprint: of everything it is made from.
        make: writes it to the path it is given, which is renamed once it is whole.

    Raises:
        RuntimeError: from `make`.
    """
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{name}@{fingerprint}"
    if _is_used(path):  # what is there waits for nobody who makes another one
        return path
    with _locked(folder / f"{name}.lock"):
        if not _is_used(path):
            with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as scratch:
                made = Path(scratch, "made")
                make(made)
                made.rename(path)
            os.utime(path)
        _forget(sorted(folder.glob(f"{name}@*"), key=lambda one: one.stat().st_mtime)[:-KEPT])
    return path


def _is_used(path: Path) -> bool:
    """Mark what is there as used just now; False where nothing is."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _forget(paths: Iterable[Path]) -> None:
    for path in paths:
        subprocess.run(["rm", "-rf", "--one-file-system", path], check=True)


def fingerprint(*parts: str | bytes) -> str:
    """Tell one set of inputs from another."""
    digest = hashlib.sha256()
    for part in parts:
        told = part.encode() if isinstance(part, str) else part
        digest.update(len(told).to_bytes(8) + told)
    return digest.hexdigest()[:16]


def content(paths: Iterable[Path]) -> str:
    """Fingerprint files by their names and what is in them."""
    return fingerprint(*(part for path in paths for part in (str(path.name), path.read_bytes())))


def carry_out(
    command: Sequence[str | Path],
    *,
    needs: str,
    where: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command of a build and return what it printed.

    Args:
        command: the program and its arguments.
        needs: what must be there for it to succeed; told when it does not.
        where: its working directory.
        environment: added to ours.

    Raises:
        RuntimeError: it is not installed or failed; with the end of what it said.
    """
    program = str(command[0])
    try:
        done = subprocess.run(
            ["nice", *command],
            cwd=where,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise RuntimeError(f"{error.filename} is not on PATH; it needs {needs}") from error
    if done.returncode:
        said = "\n".join(done.stdout.splitlines()[-30:])
        raise RuntimeError(f"{program} failed; it needs {needs}. The end of its output:\n{said}")
    return done.stdout
