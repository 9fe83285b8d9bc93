"""The filter may do what those who ask it may not: it does nothing of that for them."""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.filters import Filter, until

pytestmark = pytest.mark.host

ZERO = os.makedev(1, 5)
"""A device that is open to all, in place of a disk."""
NOBODY = 65534


@pytest.fixture
def below(tmp_path: Path) -> Iterator[int]:
    """The directory as it is seen beside the filter, by another container with the same volume."""
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield directory
    os.close(directory)


@pytest.fixture(params=[False, True], ids=["this kernel", "older"])
def filtered(tmp_path: Path, below: int, request: pytest.FixtureRequest) -> Iterator[Filter]:
    with Filter.over(tmp_path, old_kernel=request.param) as filtered:
        yield filtered


def lie(methods: tuple[str, ...] = ()) -> dict[str, object]:
    """Say of everything that it is a file, and let it be read and written by all."""
    claim = {"kind": "regularFile", "size": 100, "perm": 0o666}
    return {"source": "lie", "path": "/**/trap", "methods": methods, "attributes": claim}


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFIFO])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC])
def test_what_passes_for_a_file_is_not_opened(filtered, tmp_path, kind, flags):
    os.mknod(tmp_path / "trap", 0o666 | kind, ZERO)
    filtered.set(lie())
    with pytest.raises(PermissionError):
        os.open(tmp_path / "trap", flags)
    with pytest.raises(OSError, match=r"ermi|nvalid"):
        os.truncate(tmp_path / "trap", 0)


def test_what_appears_while_it_is_made_is_opened_by_the_kernel(filtered, tmp_path, below):
    filtered.set(lie(("create",)), slow())
    opened = Opening(tmp_path / "trap", os.getuid())
    until(lambda: filtered.counters("slow")["delayed"])
    os.mknod("trap", 0o666 | stat.S_IFCHR, ZERO, dir_fd=below)
    # A character device that the kernel opened, by the rights of whoever asked.
    assert opened.wait() == (0, stat.S_IFCHR)


def test_what_appears_while_it_is_made_is_opened_for_who_may(filtered, tmp_path, below):
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(directory.stat().st_mode | 0o777)
    filtered.set(slow())
    opened = Opening(tmp_path / "trap", NOBODY)
    until(lambda: filtered.counters("slow")["delayed"])
    os.close(os.open("trap", os.O_CREAT | os.O_EXCL, 0o600, dir_fd=below))
    assert opened.wait() == (errno.EACCES, 0)


def test_what_appears_while_it_is_made_is_what_is_opened(filtered, tmp_path, below):
    filtered.set(slow())
    opened = Opening(tmp_path / "trap", os.getuid())
    until(lambda: filtered.counters("slow")["delayed"])
    os.close(os.open("trap", os.O_CREAT | os.O_EXCL, 0o600, dir_fd=below))
    assert opened.wait() == (0, stat.S_IFREG)


def slow() -> dict[str, object]:
    return {"source": "slow", "path": "/**/trap", "methods": ("create",), "latency_us": 500_000}


class Opening:
    """Somebody who makes and opens a file, or opens the one that is there."""

    def __init__(self, path: Path, user: int) -> None:
        self._read, write = os.pipe()
        self._child = os.fork()
        if not self._child:
            os.setuid(user)
            try:
                opened = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
                said = (0, stat.S_IFMT(os.fstat(opened).st_mode))
            except OSError as refused:
                said = (refused.errno or -1, 0)
            os.write(write, repr(said).encode())
            os._exit(0)
        os.close(write)

    def wait(self) -> tuple[int, int]:
        """Say with which error it ended, and what was opened."""
        watchdog = threading.Timer(20, os.kill, (self._child, 9))
        watchdog.start()
        said = os.read(self._read, 100).decode()
        watchdog.cancel()
        os.waitpid(self._child, 0)
        os.close(self._read)
        error, kind = said.strip("()").split(", ")
        return int(error), int(kind)
