"""Logs of our containers: one file each, read whole, from near its end, or as it grows."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_BLOCK = 64 * 1024
_LOOK_SECONDS = 0.1  # how often a file that somebody follows is looked at


class LogFiles:
    """Reads what containers wrote."""

    def __init__(
        self, path_of: Callable[[str], Path], ended: Callable[[str], Awaitable[object]]
    ) -> None:
        """Read logs.

        Args:
            path_of: file of a container, by its id.
            ended: waits for the end of a container, by its id.
        """
        self._path_of, self._ended = path_of, ended

    def read(
        self, id_: str, *, follow: bool, tail_lines: int | None, limit_bytes: int | None
    ) -> AsyncIterator[bytes]:
        """Read a log; with `follow` until the container has ended.

        Raises:
            KeyError: there is no log of such a container.
        """
        try:
            file = self._path_of(id_).open("rb", buffering=0)
        except FileNotFoundError:
            raise KeyError(id_) from None
        return self._blocks(file, id_, follow, tail_lines, limit_bytes)

    async def _blocks(
        self,
        file: BinaryIO,
        id_: str,
        follow: bool,
        tail_lines: int | None,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        left = limit_bytes
        ends = asyncio.ensure_future(self._ended(id_)) if follow else None
        try:
            if tail_lines is not None:
                file.seek(_line_from_end(file, tail_lines))
            while left is None or left > 0:
                last = ends is None or ends.done()
                block = file.read(_BLOCK if left is None else min(_BLOCK, left))
                if block:
                    left = None if left is None else left - len(block)
                    yield block
                elif last:
                    return
                elif ends:
                    if file.tell() > os.fstat(file.fileno()).st_size:
                        file.seek(0)  # it was cut: what is there now are its last lines
                    await asyncio.wait([ends], timeout=_LOOK_SECONDS)
        finally:
            file.close()
            if ends:
                ends.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await ends


def _line_from_end(file: BinaryIO, lines: int) -> int:
    """Find where the last `lines` lines begin; a last line without an end counts as one."""
    end = file.seek(0, os.SEEK_END)
    if lines <= 0 or end == 0:
        return end
    file.seek(end - 1)
    wanted = lines + (1 if file.read(1) == b"\n" else 0)
    position = end
    while position > 0:
        start = max(0, position - _BLOCK)
        file.seek(start)
        block = file.read(position - start)
        count = block.count(b"\n")
        if count >= wanted:
            cut = len(block)
            for _ in range(wanted):
                cut = block.rindex(b"\n", 0, cut)
            return start + cut + 1
        wanted -= count
        position = start
    return 0
