"""Client of a `squall-node` process that holds faults in one target.

The process ends with whoever holds it last: it lives while a client is connected, for one lease
after the connection is gone, and never past its deadline. Whatever ends it, nothing of what it
held is left in the target.
"""

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from squall.errors import TryAgain, Unsupported
from squall.linux.json_lines import ANSWER_SECONDS, Connection
from squall.linux.processes import send, started

START_SECONDS = 5.0
"""For the process to be ready: it takes milliseconds, so later means that the host is stuck."""


def program() -> str:
    """Find `squall-node`: beside this Python, where its wheel puts it, else on PATH.

    Raises:
        Unsupported: it is in neither place.
    """
    beside = Path(sys.executable).with_name("squall-node")
    found = str(beside) if beside.exists() else shutil.which("squall-node")
    if found is None:
        raise Unsupported(
            f"squall-node is neither at {beside} nor on PATH; install the package squall-node"
        )
    return found


class Holder:
    """One running process that holds faults, seen through a connection to it.

    Only one connection counts: a newer one replaces this, which then is `gone`. Calls may overlap;
    the process answers them in order.
    """

    def __init__(self, connection: Connection, log: Path) -> None:
        self._connection = connection
        self._log = log
        self.pid = connection.pid
        """Its process id, in our PID namespace."""
        self._started = started(self.pid) or 0
        self.gone = connection.gone
        """Set when the connection is lost. Unless `close` was called, or another client took over,
        the process has ended and nothing of what it held is left: the fault has failed open."""

    @classmethod
    async def begin(
        cls, module: str, options: Mapping[str, str], path: Path, *, lease_seconds: float
    ) -> Self:
        """Start a process and connect to it.

        It is no child of ours: it survives us by one lease. A socket left at `path` is replaced; so
        try `connect` first. What the process logs stands beside it, in `<path>.log`.

        Args:
            module: subcommand of squall-node, such as `packets`.
            options: what it is told about its target, by name, as `{"netns": "/proc/7/ns/net"}`.
            path: of the Unix socket it listens on; its folder must exist.
            lease_seconds: until it is told another by `set`.

        Raises:
            Unsupported: the host lacks something; the message says what.
            TryAgain: it did not come up in time, or the target is gone.
        """
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        where = f"squall-node {module} for {' '.join(options.values())}"
        log = _log_of(path)
        with log.open("wb") as stderr:
            child = await asyncio.create_subprocess_exec(
                *(program(), module, *arguments),
                *("--socket", str(path), "--lease", str(lease_seconds)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
            )
        # The child hands over to a session of its own and exits once the socket is there.
        try:
            async with asyncio.timeout(START_SECONDS):
                status = await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()
            raise TryAgain(f"{where} was not ready in {START_SECONDS} s") from None
        if status:
            failure = Unsupported if status == _HOST_LACKS else TryAgain
            raise failure(f"{where}: {_last_words(log) or f'exit status {status}'}")
        connected = await cls.connect(path)
        if connected is None:
            raise TryAgain(f"{where} ended right after its start; see {log}")
        return connected

    @classmethod
    async def connect(cls, path: Path) -> Self | None:
        """Connect to a process started earlier, by this agent or the one before it.

        Returns:
            None when nobody listens at `path`: it has ended, and holds nothing.
        """
        connection = await Connection.open(path)
        return None if connection is None else cls(connection, _log_of(path))

    async def ask(self, verb: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send one request and wait for its answer; on an error nothing has changed.

        Raises:
            InvalidFault, Unsupported, TryAgain: as the process says.
            TryAgain: also when it is gone, or does not answer in time.
        """
        return await self._connection.ask(verb, request)

    async def quit(self) -> None:
        """End the process and wait until it has let go of everything; already gone is fine.

        Raises:
            TryAgain: it cannot be killed just now.
        """
        try:
            await self._connection.ask("quit")
            ended = await self._ends()
        except TryAgain:
            ended = self.gone.is_set()
        if not ended:
            # It hangs, and holds what must go; what it held is taken back from the dead.
            send(self.pid, self._started, signal.SIGKILL)
            if not await self._ends():
                raise TryAgain(f"squall-node {self.pid} does not end, not even by SIGKILL")
        self._log.unlink(missing_ok=True)

    async def _ends(self) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.gone.wait()
        return self.gone.is_set()

    def close(self) -> None:
        """Drop the connection; the process lives on for its lease."""
        self._connection.close()


_LOG = ".log"
_HOST_LACKS = 3
"""Exit status of squall-node when the host lacks what it needs."""


def begun(folder: Path) -> list[Path]:
    """Give the socket's path of each process ever begun in a folder, but for the forgotten ones."""
    there = folder.iterdir() if folder.is_dir() else ()
    return sorted({path.with_name(path.name.removesuffix(_LOG)) for path in there})


def forget(path: Path) -> None:
    """Remove what a killed process leaves at its socket's path, and the folder with the last one.

    Whoever begins one makes the folder, and a file in it, without a pause in between.
    """
    path.unlink(missing_ok=True)
    _log_of(path).unlink(missing_ok=True)
    with suppress(OSError):  # there is more in it
        path.parent.rmdir()


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + _LOG)


def _last_words(log: Path) -> str:
    """Read the last message of a log; each line of it is JSON, but for those of a crash."""
    lines = log.read_text(errors="replace").splitlines()
    last = lines[-1] if lines else ""
    with suppress(ValueError, KeyError, TypeError):
        last = json.loads(last)["message"]
    return last
