"""The same about what open files hold."""

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import struct
import threading
from pathlib import Path

from squall.linux.tests.file_cases import Case, as_user, file, outcome, told

_LIBC = ctypes.CDLL(None, use_errno=True)
_SET_FLAGS, _ONLY_APPEND = 0x40086602, 0x20


def without_a_name(at: Path) -> object:
    path = file(at / "gone")
    fd = os.open(path, os.O_RDWR)
    path.unlink()
    os.pwrite(fd, b"still", 0)
    os.fchmod(fd, 0o600)
    os.ftruncate(fd, 6)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    seen = (
        os.pread(again, 100, 0),
        os.fstat(again).st_nlink,
        oct(os.fstat(fd).st_mode),
        path.exists(),
    )
    os.close(again)
    os.close(fd)
    unnamed = os.open(at, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(unnamed, b"born later")
    links = os.fstat(unnamed).st_nlink
    name, here, follow = str(at / "named").encode(), -100, 0x400
    assert not _LIBC.linkat(here, f"/proc/self/fd/{unnamed}".encode(), here, name, follow)
    os.close(unnamed)
    return seen, links, (at / "named").read_bytes(), told(at / "named")


def replaced_while_open(at: Path) -> object:
    old = file(at / "f", content=b"old")
    fd = os.open(old, os.O_RDONLY)
    os.rename(file(at / "g", content=b"new"), old)
    seen = os.read(fd, 10), os.fstat(fd).st_nlink, old.read_bytes()
    os.close(fd)
    return seen


def appending(at: Path) -> object:
    """Two writers at once lose nothing; fcntl() may ask for it later."""
    path = file(at / "log", content=b"")

    def write(letter: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        for _ in range(200):
            os.write(fd, letter * 7)
        os.close(fd)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    content = path.read_bytes()
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    os.write(fd, b"end")
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    os.pwrite(fd, b"begin", 0)
    os.close(fd)
    whole = path.read_bytes()
    return content.count(b"a" * 7), content.count(b"b" * 7), whole[:5], whole[-3:], len(whole)


def only_appended_to(at: Path) -> object:
    """A file that chattr(1) has made so; some file systems know no such thing."""
    path = file(at / "log")

    def mark(flags: int) -> None:
        with path.open("rb") as opened:  # some set it, and then refuse what was not asked
            outcome(lambda: fcntl.ioctl(opened, _SET_FLAGS, struct.pack("l", flags)))

    def write(flags: int) -> int:
        fd = os.open(path, os.O_WRONLY | flags)
        try:
            return os.write(fd, b" and more")
        finally:
            os.close(fd)

    mark(_ONLY_APPEND)
    try:
        seen = [outcome(lambda flags=flags: write(flags)) for flags in (0, os.O_APPEND, os.O_TRUNC)]
        return seen, outcome(path.unlink), outcome(path.read_bytes)
    finally:
        mark(0)


def cut_by_who_only_reads(at: Path) -> object:
    path = file(at / "cut", 0o644)
    fd = os.open(path, os.O_RDONLY | os.O_TRUNC)
    seen = os.read(fd, 10), outcome(lambda: os.write(fd, b"x")), path.stat().st_size
    os.close(fd)
    return seen


def direct(at: Path) -> object:
    page = mmap.mmap(-1, 8192)
    page[:] = b"d" * 8192
    fd = os.open(at / "direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
    seen = [os.pwritev(fd, [page], 0), outcome(lambda: os.pwritev(fd, [memoryview(page)[:100]], 0))]
    seen.append(outcome(lambda: os.preadv(fd, [page], 100)))
    os.close(fd)
    return seen, bytes(page[:10]), (at / "direct").stat().st_size


def direct_for_a_while(at: Path) -> object:
    """What fcntl() takes back; a file that the kernel serves by itself keeps it."""
    page = mmap.mmap(-1, 8192)
    page[:] = b"d" * 8192
    fd = os.open(at / "direct", os.O_RDWR | os.O_CREAT, 0o600)
    seen = [os.pwritev(fd, [page], 0)]
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)
    seen.append(os.preadv(fd, [page], 0))
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    seen.append(os.pwrite(fd, b"odd", 8192))
    os.close(fd)
    return seen, bytes(page[:10]), (at / "direct").stat().st_size


def locks(at: Path) -> object:
    path = file(at / "locked")
    with path.open("r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX, 4, 0)

        def other() -> object:
            with path.open("r+b") as opened:
                fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB, 4, 4)
                first = outcome(lambda: fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB, 4, 0))
                return first, outcome(lambda: fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB))

        path.chmod(0o666)
        record = as_user(other)
        fcntl.flock(held, fcntl.LOCK_SH)
        return record, as_user(other)


def mapped_by_two(at: Path) -> object:
    """Mappings and writes see each other."""
    path = file(at / "mapped", content=bytes(8192))
    with path.open("r+b") as one, path.open("r+b") as two:
        first, second = mmap.mmap(one.fileno(), 8192), mmap.mmap(two.fileno(), 8192)
        first[:3] = b"one"
        seen = [bytes(second[:3])]
        os.pwrite(two.fileno(), b"two", 4096)
        seen.append(bytes(first[4096:4099]))
        first.flush()
        seen.append(os.pread(two.fileno(), 3, 0))
        private = mmap.mmap(one.fileno(), 8192, flags=mmap.MAP_PRIVATE)
        private[:3] = b"own"
        seen.append(os.pread(two.fileno(), 3, 0))
        for each in (first, second, private):
            each.close()
    return seen, path.read_bytes()[:3]


def program_runs(at: Path) -> object:
    program = file(at / "true", 0o755, Path("/bin/true").read_bytes())
    return os.waitstatus_to_exitcode(os.system(str(program)))  # noqa: S605


def sent_and_spliced(at: Path) -> object:
    path = file(at / "sent", content=b"0123456789" * 5000)
    reader, writer = os.pipe()
    with path.open("rb") as source:
        spliced = os.splice(source.fileno(), writer, 4000, offset_src=10)
        got = os.read(reader, 4000)
        with (at / "copy").open("wb") as target:
            sent = os.sendfile(target.fileno(), source.fileno(), 0, 50000)
    os.close(reader)
    os.close(writer)
    return spliced, got[:10], sent, (at / "copy").read_bytes() == path.read_bytes()


def limit_of_size(at: Path) -> object:
    """Beyond RLIMIT_FSIZE a write fails; before it, it is cut."""
    path = file(at / "limited", 0o666, b"")

    def act() -> object:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with path.open("r+b", buffering=0) as opened:
            return opened.write(bytes(2000)), outcome(lambda: opened.write(b"x"))

    return as_user(act)


DATA_CASES: tuple[Case, ...] = (
    without_a_name,
    replaced_while_open,
    appending,
    only_appended_to,
    cut_by_who_only_reads,
    direct,
    direct_for_a_while,
    locks,
    mapped_by_two,
    program_runs,
    sent_and_spliced,
    limit_of_size,
)
