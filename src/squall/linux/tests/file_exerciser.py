"""Does the same at random to two directories, and compares what comes of it.

One is native, the other one the same file system behind the filter: return values, errors, contents
and attributes must agree, step by step.
"""

import ctypes
import errno
import mmap
import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

NAMES = ("a", "b", "c", "d/e", "d/f", "d", "g")
LARGEST = 200_000
FALLOC_MODES = (0, 1, 3, 16 | 1, 16)
"""Allocate, keep the size, punch a hole, zero."""

_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class Side:
    """One of the two directories, and what is open in it."""

    root: Path
    open: dict[int, int] = field(default_factory=dict)
    maps: dict[int, mmap.mmap] = field(default_factory=dict)

    def path(self, name: str) -> str:
        return str(self.root / name)

    def close(self) -> None:
        for mapped in self.maps.values():
            mapped.close()
        for fd in self.open.values():
            os.close(fd)


def told(fd: int) -> tuple[int, ...]:
    """What fstat says that does not depend on where and when."""
    found = os.fstat(fd)
    return (found.st_mode, found.st_size, found.st_nlink, found.st_uid, found.st_gid)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    call = _LIBC.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(fd, mode, offset, length):
        raise OSError(ctypes.get_errno(), "fallocate")


def rename2(old: str, new: str, flags: int) -> None:
    at = -100  # the current directory, of which absolute paths make no use
    if _LIBC.renameat2(at, old.encode(), at, new.encode(), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


class Exerciser:
    """Takes one step after the other on both sides."""

    def __init__(self, seed: int, native: Path, filtered: Path) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - to be repeated
        self.sides = (Side(native), Side(filtered))
        self.log: list[str] = []
        self.slot = 0
        for side in self.sides:
            (side.root / "d").mkdir(exist_ok=True)

    def run(self, steps: int) -> None:
        """Take so many steps, and compare everything at the end.

        Raises:
            AssertionError: they came to differ; the last steps are told.
        """
        kinds = (
            *(self.create,) * 2,
            *(self.write,) * 8,
            *(self.read,) * 6,
            *(self.append, self.truncate, self.allocate, self.change_mapped, self.read_mapped) * 2,
            *(self.map, self.sync, self.holes, self.copy, self.shut, self.reopen),
            *(self.rename, self.link, self.unlink, self.mkdir, self.rmdir, self.list, self.stat),
            *(self.chmod, self.xattr),
        )
        for _ in range(steps):
            self.chance.choice(kinds)()
        self.compare()

    def close(self) -> None:
        for side in self.sides:
            side.close()

    def both(self, what: str, act: Callable[[Side], object]) -> list[object]:
        def outcome(side: Side) -> object:
            try:
                return act(side)
            except OSError as error:
                return f"errno {errno.errorcode.get(error.errno or 0)}"

        self.log.append(what)
        native, filtered = (outcome(side) for side in self.sides)
        last = "\n".join(self.log[-40:])
        assert native == filtered, f"{what}: native {native!r}, filtered {filtered!r}\n{last}"
        return [native, filtered]

    def on_open(self, what: str, act: Callable[[Side, int, int], object]) -> None:
        slots = sorted(self.sides[0].open)
        if slots:
            slot = self.chance.choice(slots)
            self.both(f"{what} of {slot}", lambda side: act(side, side.open[slot], slot))

    def place(self) -> tuple[int, int]:
        offset = self.chance.choice((0, 4096, self.chance.randrange(LARGEST)))
        return offset, self.chance.choice((1, 4096, self.chance.randrange(1, 30_000)))

    def content(self, length: int) -> bytes:
        return self.chance.randbytes(97) * (length // 97 + 1)

    def create(self) -> None:
        name, slot = self.chance.choice(NAMES), self.slot
        extra = self.chance.choice((0, os.O_TRUNC, os.O_EXCL, os.O_APPEND, os.O_DSYNC))
        self.slot += 1

        def act(side: Side) -> object:
            side.open[slot] = os.open(side.path(name), os.O_RDWR | os.O_CREAT | extra, 0o640)
            return told(side.open[slot])

        if len(self.sides[0].open) < 12:
            self.both(f"open {name} {extra:o} as {slot}", act)

    def reopen(self) -> None:
        slot = self.slot
        self.slot += 1

        def act(side: Side, fd: int, _: int) -> object:
            side.open[slot] = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
            return told(side.open[slot])

        if len(self.sides[0].open) < 12:
            self.on_open("reopen", act)

    def write(self) -> None:
        offset, length = self.place()
        data = self.content(length)[:length]
        what = f"write {length} at {offset}"
        self.on_open(what, lambda _, fd, __: (os.pwrite(fd, data, offset), told(fd)))

    def append(self) -> None:
        data = self.content(500)[:500]

        def act(_: Side, fd: int, __: int) -> object:
            end = os.lseek(fd, 0, os.SEEK_END)
            return end, os.write(fd, data), told(fd)

        self.on_open("append", act)

    def read(self) -> None:
        offset, length = self.place()
        self.on_open(f"read {length} at {offset}", lambda _, fd, __: os.pread(fd, length, offset))

    def truncate(self) -> None:
        size = self.chance.choice((0, self.chance.randrange(LARGEST)))

        def act(side: Side, fd: int, slot: int) -> object:
            if slot in side.maps:  # what is mapped beyond the end must not be touched
                side.maps.pop(slot).close()
            os.ftruncate(fd, size)
            return told(fd)

        if not self.sides[0].maps:
            self.on_open(f"truncate to {size}", act)

    def allocate(self) -> None:
        mode = self.chance.choice(FALLOC_MODES)
        offset, length = self.place()
        what = f"fallocate {mode}, {length} at {offset}"

        def allocated(_: Side, fd: int, __: int) -> object:
            fallocate(fd, mode, offset, length)
            return told(fd)

        self.on_open(what, allocated)

    def map(self) -> None:
        def act(side: Side, fd: int, slot: int) -> object:
            size = os.fstat(fd).st_size
            if slot in side.maps or not size:
                return None
            side.maps[slot] = mmap.mmap(fd, size)
            return size

        self.on_open("map", act)

    def change_mapped(self) -> None:
        at, data = self.chance.randrange(LARGEST), self.content(3000)[:3000]

        def act(side: Side, _: int, slot: int) -> object:
            mapped = side.maps.get(slot)
            if mapped is None or at + len(data) > min(len(mapped), mapped.size()):
                return None
            mapped[at : at + len(data)] = data
            mapped.flush()
            return at

        self.on_open(f"change {at} in the mapping", act)

    def read_mapped(self) -> None:
        at = self.chance.randrange(LARGEST)

        def act(side: Side, _: int, slot: int) -> object:
            mapped = side.maps.get(slot)
            within = mapped is not None and at + 4096 <= min(len(mapped), mapped.size())
            return mapped[at : at + 4096] if mapped is not None and within else None

        self.on_open(f"read {at} in the mapping", act)

    def sync(self) -> None:
        how = self.chance.choice((os.fsync, os.fdatasync))
        self.on_open(how.__name__, lambda _, fd, __: how(fd))

    def holes(self) -> None:
        """Ask for data; where they begin depends on how they came there, and may differ."""
        offset = self.place()[0]

        def act(_: Side, fd: int, __: int) -> bool:
            try:
                return os.lseek(fd, offset, os.SEEK_DATA) >= offset
            except OSError as error:
                return error.errno == errno.ENXIO

        self.on_open(f"data from {offset}", act)

    def copy(self) -> None:
        slots = sorted(self.sides[0].open)
        if not slots:
            return
        source, target = self.chance.choice(slots), self.chance.choice(slots)
        (offset, length), to = self.place(), self.place()[0]
        what = f"copy {length} at {offset} of {source} to {to} of {target}"
        self.both(
            what,
            lambda side: os.copy_file_range(
                side.open[source], side.open[target], length, offset, to
            ),
        )

    def shut(self) -> None:
        def act(side: Side, fd: int, slot: int) -> None:
            if slot in side.maps:
                side.maps.pop(slot).close()
            del side.open[slot]
            os.close(fd)

        self.on_open("close", act)

    def two_names(self) -> tuple[str, str]:
        return self.chance.choice(NAMES), self.chance.choice(NAMES)

    def rename(self) -> None:
        old, new = self.two_names()
        flags = self.chance.choice((0, 0, 1, 2))
        what = f"rename {old} to {new}, flags {flags}"
        self.both(what, lambda side: rename2(side.path(old), side.path(new), flags))

    def link(self) -> None:
        old, new = self.two_names()
        self.both(f"link {old} to {new}", lambda side: os.link(side.path(old), side.path(new)))

    def unlink(self) -> None:
        name = self.chance.choice(NAMES)
        self.both(f"unlink {name}", lambda side: os.unlink(side.path(name)))

    def mkdir(self) -> None:
        name = self.chance.choice(NAMES)
        self.both(f"mkdir {name}", lambda side: os.mkdir(side.path(name), 0o750))

    def rmdir(self) -> None:
        name = self.chance.choice(NAMES)
        self.both(f"rmdir {name}", lambda side: os.rmdir(side.path(name)))

    def list(self) -> None:
        name = self.chance.choice((".", "d"))
        self.both(f"list {name}", lambda side: sorted(os.listdir(side.path(name))))

    def stat(self) -> None:
        name = self.chance.choice(NAMES)

        def act(side: Side) -> object:
            found = os.lstat(side.path(name))
            size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
            return found.st_mode, size, found.st_nlink

        self.both(f"stat {name}", act)

    def chmod(self) -> None:
        name, mode = self.chance.choice(NAMES), self.chance.choice((0o600, 0o755, 0o711))
        self.both(f"chmod {name} {mode:o}", lambda side: os.chmod(side.path(name), mode))

    def xattr(self) -> None:
        name, value = self.chance.choice(NAMES), self.chance.randbytes(8)

        def act(side: Side) -> object:
            os.setxattr(side.path(name), "trusted.squall", value)
            return os.getxattr(side.path(name), "trusted.squall"), os.listxattr(side.path(name))

        self.both(f"xattr of {name}", act)

    def compare(self) -> None:
        """Compare all that there is, by name and by what is open."""
        for slot in sorted(self.sides[0].open):
            self.both(
                f"all of {slot}", lambda side, slot=slot: os.pread(side.open[slot], 1 << 20, 0)
            )

        def tree(side: Side) -> object:
            found = {}
            for path in sorted(side.root.rglob("*")):
                content = path.read_bytes() if path.is_file() else b""
                found[str(path.relative_to(side.root))] = (path.lstat().st_mode, content)
            return found

        self.both("everything", tree)
