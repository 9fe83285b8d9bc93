"""Commands inside containers, by `squall-node exec`: with pipes, or with a terminal."""

import asyncio
import errno
import fcntl
import os
import struct
import termios
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

from squall.errors import TargetGone
from squall.linux.processes import started as start_ticks

_BLOCK = 64 * 1024


class Commands:
    """Starts commands in every namespace and cgroup of a process."""

    def __init__(self, node_program: str) -> None:
        self._program = node_program

    async def start(
        self, pid: int, started: int, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> "Piped | Terminal":
        """Start a command.

        Args:
            pid: init process of the container.
            started: its start time in clock ticks after boot.
            command: program and arguments; the program is looked for inside.
            stdin: will there be input?
            tty: with a terminal?

        Raises:
            TargetGone: the process has ended.
        """
        if start_ticks(pid) != started:
            raise TargetGone(f"process {pid} has ended")
        words = [self._program, "exec", "--pid", str(pid), "--started", str(started)]
        if tty:
            return await _with_terminal([*words, "--tty", "--", *command], stdin=stdin)
        process = await asyncio.create_subprocess_exec(
            *words,
            "--",
            *command,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return Piped(process)


class PipeInput:
    """Standard input through a pipe; a command that no longer reads is no error here."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def write(self, octets: bytes) -> None:
        """Queue octets."""
        if not self._writer.is_closing():
            self._writer.write(octets)

    async def drain(self) -> None:
        """Wait until the command has read enough."""
        with suppress(ConnectionError):
            await self._writer.drain()

    def close(self) -> None:
        """End of file."""
        self._writer.close()


class Piped:
    """A command with three pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.stdin = PipeInput(process.stdin) if process.stdin else None
        self.stdout = cast("asyncio.StreamReader", process.stdout)
        self.stderr = process.stderr

    async def wait(self) -> int:
        """Wait for its end; 128 + n after signal n."""
        return _status(await self._process.wait())

    def resize(self, columns: int, rows: int) -> None:
        """Nothing: there is no terminal."""

    def kill(self) -> None:
        """SIGKILL `squall-node exec`, and with it the command."""
        with suppress(ProcessLookupError):
            self._process.kill()


class Terminal:
    """A command with a pseudo-terminal; this is its other end."""

    def __init__(self, process: asyncio.subprocess.Process, master: int, *, stdin: bool) -> None:
        self._process, self._master = process, master
        self._loop = asyncio.get_running_loop()
        self._queued = bytearray()
        self.stdin = self if stdin else None
        self.stdout = self
        self.stderr = None
        os.set_blocking(master, False)

    async def read(self, limit: int = -1, /) -> bytes:
        """Read what the terminal shows; empty when the command has ended."""
        while self._master >= 0:
            try:
                return os.read(self._master, _BLOCK if limit < 0 else limit)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError as failed:
                if failed.errno != errno.EIO:  # what Linux says when nobody has it open any more
                    raise
                self._close()
        return b""

    def write(self, octets: bytes) -> None:
        """Type something."""
        self._queued += octets
        self._flush()

    async def drain(self) -> None:
        """Wait until all that was typed has been taken."""
        while self._flush():
            await self._ready(self._loop.add_writer, self._loop.remove_writer)

    def close(self) -> None:
        """Type Ctrl-D: a terminal has no other end of file."""
        self.write(b"\x04")

    async def wait(self) -> int:
        """Wait for its end; 128 + n after signal n."""
        return _status(await self._process.wait())

    def resize(self, columns: int, rows: int) -> None:
        """Tell the terminal its size; the command gets SIGWINCH."""
        if self._master >= 0:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def kill(self) -> None:
        """SIGKILL `squall-node exec`, and with it the command; its terminal is gone too."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._close()

    def _flush(self) -> bool:
        """Write what is queued; True where some is left."""
        if self._master < 0:
            self._queued.clear()
        while self._queued:
            try:
                del self._queued[: os.write(self._master, self._queued)]
            except BlockingIOError:
                return True
            except OSError:
                self._queued.clear()
        return False

    async def _ready(self, add, remove) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        ready = asyncio.Event()
        handle = self._master
        add(handle, ready.set)
        try:
            await ready.wait()
        finally:
            if handle == self._master:
                remove(handle)

    def _close(self) -> None:
        if self._master >= 0:
            self._loop.remove_reader(self._master)
            self._loop.remove_writer(self._master)
            os.close(self._master)
            self._master = -1


async def _with_terminal(words: Sequence[str], *, stdin: bool) -> Terminal:
    master, slave = os.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=slave, stdout=slave, stderr=slave
        )
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    return Terminal(process, master, stdin=stdin)


def _status(code: int) -> int:
    return 128 - code if code < 0 else code
