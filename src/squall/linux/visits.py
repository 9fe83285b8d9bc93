"""A few calls on files of a target, made as its own processes would; nothing is changed by them."""

import asyncio
import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TypeVar

from squall.errors import TargetGone, TryAgain
from squall.injection.world.files import Access, Attributes, Call, FileKind, Moment, Visit
from squall.injection.world.globs import is_literal, matches
from squall.injection.world.target import Target
from squall.linux.openat2 import open_in_root
from squall.linux.processes import PROC, started

T = TypeVar("T")

MOST_ENTRIES = 500
"""Names looked at for one that fits a pattern: a visit takes milliseconds."""

READ_BYTES = 16

_REQUESTS: Mapping[Call, frozenset[str]] = {
    "stat": frozenset({"lookup", "getattr"}),
    "open": frozenset({"open"}),
    "read": frozenset({"read"}),
    "close": frozenset({"flush"}),
    "list": frozenset({"opendir", "readdir"}),
    "statfs": frozenset({"statfs"}),
    "listxattr": frozenset({"listxattr"}),
}
"""What each call asks the file system for, and waits for; nobody waits for `release`."""

_KINDS: Mapping[int, FileKind] = {
    stat.S_IFIFO: "namedPipe",
    stat.S_IFCHR: "charDevice",
    stat.S_IFBLK: "blockDevice",
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "regularFile",
    stat.S_IFLNK: "symlink",
    stat.S_IFSOCK: "socket",
}


class Visits:
    """Goes to files of targets, one thread at a time in each.

    A call may be held for as long as a fault wants; nobody waits for it longer than told, and the
    next visit finds out how it went.
    """

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, ...], _Visitor] = {}
        """What has not come back, by where it went and what for."""

    async def visit(
        self,
        target: Target,
        volume: str,
        path: str,
        methods: Collection[str],
        *,
        within_seconds: float,
    ) -> Visit:
        """See `squall.injection.world.files.Files.visit`.

        Raises:
            TargetGone: its process has ended.
            TryAgain: its files cannot be reached.
        """
        errand = (target.id, volume, path, *sorted(methods))
        visitor = self._under_way.pop(errand, None)
        if visitor is None or visitor.done.is_set() or visitor.target != target:
            visitor = _Visitor(target, volume, path, methods)
            visitor.begin()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await visitor.done.wait()
        if not visitor.done.is_set():
            self._under_way[errand] = visitor
        return visitor.seen()


class _Visitor:
    """One visit, in a thread of its own: a call that a fault holds cannot be given up."""

    def __init__(self, target: Target, volume: str, path: str, methods: Collection[str]) -> None:
        self.target = target
        self.done = asyncio.Event()
        self._volume, self._path, self._methods = volume, path, frozenset(methods)
        self._loop = asyncio.get_running_loop()
        self._visit = Visit()
        self._now: tuple[Call, float] | None = None
        """The call under way, and since when."""
        self._failure: Exception | None = None

    def begin(self) -> None:
        threading.Thread(target=self._run, name="visit", daemon=True).start()

    def seen(self) -> Visit:
        """Say what came of it so far."""
        if self._failure is not None:
            raise self._failure
        visit, now = self._visit, self._now
        if now is None:
            return visit
        waiting = Access(now[0], time.monotonic() - now[1], None)
        return replace(visit, accesses=(*visit.accesses, waiting))

    def _run(self) -> None:
        try:
            self._go()
        except (TargetGone, TryAgain) as failure:
            self._failure = failure
        except OSError:
            pass  # a file that is gone, or a call that failed: what was seen until then counts
        finally:
            with suppress(RuntimeError):  # the loop has ended before us
                self._loop.call_soon_threadsafe(self.done.set)

    def _go(self) -> None:
        root = _root(self.target)
        try:
            volume = open_in_root(root, self._volume, os.O_PATH | os.O_DIRECTORY)
            try:
                if name := self._found(root, volume):
                    self._visit = replace(self._visit, path=name)
                    self._call_all(root, name)
                self._call("statfs", lambda: os.fstatvfs(volume))
            finally:
                os.close(volume)
        finally:
            os.close(root)

    def _found(self, root: int, volume: int) -> str:
        """Find a file that fits: the one that is named, or the first that is met."""
        if self._path and is_literal(self._path):
            return self._path
        folders, looked, fallback = [self._volume], 0, ""
        while folders:
            folder = folders.pop(0)
            fits = matches(self._path, folder)
            for entry in self._listed(root, folder, fits=fits):
                looked += 1
                full = f"{folder}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    folders.append(full)
                    fallback = fallback or (full if matches(self._path, full) else "")
                elif entry.is_file(follow_symlinks=False) and matches(self._path, full):
                    return full
                if looked >= MOST_ENTRIES:
                    return fallback
        return fallback

    def _listed(self, root: int, folder: str, *, fits: bool) -> list[os.DirEntry[str]]:
        def entries() -> list[os.DirEntry[str]]:
            opened = open_in_root(root, folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                with os.scandir(opened) as found:
                    return sorted(found, key=lambda entry: entry.name)[:MOST_ENTRIES]
            finally:
                os.close(opened)

        if fits:
            return self._call("list", entries, always=True) or []
        return entries()

    def _call_all(self, root: int, name: str) -> None:
        with ExitStack() as held:
            seen = self._call("stat", lambda: _stat(root, name, held), always=True)
            if seen is None:
                return
            at, found = seen
            if self._asks("stat"):
                self._visit = replace(self._visit, attributes=_attributes(found))
            # What was looked at, and no other: the target may have put a device in its place.
            if stat.S_ISREG(found.st_mode):
                self._read(at)

    def _read(self, at: int) -> None:
        opened = self._call("open", lambda: _open_to_read(at), always=True)
        if opened is None:
            return
        try:
            self._call("read", lambda: os.pread(opened, READ_BYTES, 0))
            self._call("listxattr", lambda: os.listxattr(opened))
        finally:
            self._call("close", lambda: os.close(opened), always=True)

    def _asks(self, call: Call) -> bool:
        return not self._methods or bool(_REQUESTS[call] & self._methods)

    def _call(self, call: Call, act: Callable[[], T], *, always: bool = False) -> T | None:
        """Make one call and note how it went; one that asks for nothing of interest is left out.

        Args:
            call: what is done.
            act: does it.
            always: do it anyway, unnoted: others need what it gives.
        """
        if not self._asks(call):
            return act() if always else None
        begun = time.monotonic()
        self._now = call, begun
        result, failed = None, 0
        try:
            result = act()
        except OSError as failure:
            failed = failure.errno or errno.EIO
        self._now = None
        access = Access(call, time.monotonic() - begun, failed)
        self._visit = replace(self._visit, accesses=(*self._visit.accesses, access))
        return result


def _root(target: Target) -> int:
    """Open the root of a target, made sure to be its own."""
    try:
        root = os.open(PROC / str(target.pid) / "root", os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, ProcessLookupError):
        raise TargetGone(f"{target.id}: process {target.pid} has ended") from None
    except PermissionError as refused:
        raise TryAgain(f"{target.id}: its files: {refused.strerror}") from refused
    if started(target.pid) != target.started:
        os.close(root)
        raise TargetGone(f"{target.id}: process {target.pid} has ended")
    return root


def _open_to_read(at: int) -> int:
    flags, path = os.O_RDONLY | os.O_CLOEXEC, f"/proc/self/fd/{at}"
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError as refused:
        if refused.errno != errno.EPERM:  # only the owner, and CAP_FOWNER, may leave no trace
            raise
        return os.open(path, flags)


def _stat(root: int, path: str, held: ExitStack) -> tuple[int, os.stat_result]:
    """Look at a file, and keep hold of it."""
    at = open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    held.callback(os.close, at)
    return at, os.fstat(at)


def _attributes(found: os.stat_result) -> Attributes:
    return Attributes(
        ino=found.st_ino,
        size=found.st_size,
        blocks=found.st_blocks,
        atime=_moment(found.st_atime_ns),
        mtime=_moment(found.st_mtime_ns),
        ctime=_moment(found.st_ctime_ns),
        kind=_KINDS.get(stat.S_IFMT(found.st_mode)),
        perm=stat.S_IMODE(found.st_mode),
        nlink=found.st_nlink,
        uid=found.st_uid,
        gid=found.st_gid,
        rdev=found.st_rdev,
    )


def _moment(nanoseconds: int) -> Moment:
    return Moment(*divmod(nanoseconds, 10**9))
