"""Containers that do not exist, for tests of whoever asks a `Runtime` for logs and commands."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from squall.api.cluster import ApiError, Object
from squall.kubernetes.embedded.runtime import Session


class FakeRuntime:
    """Has the same log for every container, and a few commands.

    `cat` gives back its input; `fail N TEXT` writes to stderr and exits with N; `hold` runs until
    it is killed; anything else writes its own words to stdout.
    """

    def __init__(self, log: bytes = b"one\ntwo\nthree\n") -> None:
        self.log = log
        self.more: asyncio.Queue[bytes] = asyncio.Queue()
        """What followers of a log get next; empty bytes end it."""
        self.sessions: list[FakeSession] = []

    async def logs(
        self,
        pod: Object,
        container: str,
        *,
        follow: bool,
        tail_lines: int | None,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        """Give the log."""
        if container == "silent":
            raise ApiError(400, "BadRequest", f"container {container} has no log")
        lines = self.log.splitlines(keepends=True)
        if tail_lines is not None:
            lines = lines[len(lines) - min(tail_lines, len(lines)) :]
        yield b"".join(lines)[:limit_bytes]
        while follow and (more := await self.more.get()):
            yield more

    def check(self, pod: Object, container: str) -> None:
        """Refuse the container that is silent."""
        if container == "silent":
            raise ApiError(400, "BadRequest", f"container {container} does not run")

    async def start(
        self, pod: Object, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Session:
        """Start one of the commands."""
        self.check(pod, container)
        session = FakeSession(list(command), stdin=stdin, tty=tty)
        self.sessions.append(session)
        return session


class FakePipe:
    """Both ends of a stream."""

    def __init__(self) -> None:
        self._reader = asyncio.StreamReader()
        self._closed = False

    def write(self, octets: bytes) -> None:
        """Queue octets."""
        self._reader.feed_data(octets)

    async def drain(self) -> None:
        """Wait for nothing: there is room."""

    def close(self) -> None:
        """End it; again changes nothing."""
        if not self._closed:
            self._closed = True
            self._reader.feed_eof()

    async def read(self, limit: int = -1, /) -> bytes:
        """Read what is there."""
        return await self._reader.read(limit)


class FakeSession:
    """One run of a `FakeRuntime` command."""

    def __init__(self, command: list[str], *, stdin: bool, tty: bool) -> None:
        self.command, self.tty = command, tty
        self.size: tuple[int, int] | None = None
        self.killed = asyncio.Event()
        self._input = FakePipe() if stdin else None
        self._output, self._errors = FakePipe(), None if tty else FakePipe()
        self._running = asyncio.ensure_future(self._run())

    @property
    def stdin(self) -> FakePipe | None:
        """What the command reads."""
        return self._input

    @property
    def stdout(self) -> FakePipe:
        """What it writes."""
        return self._output

    @property
    def stderr(self) -> FakePipe | None:
        """What it complains."""
        return self._errors

    async def wait(self) -> int:
        """Wait for its end."""
        return await asyncio.shield(self._running)

    def resize(self, columns: int, rows: int) -> None:
        """Note the size."""
        self.size = columns, rows

    def kill(self) -> None:
        """End it."""
        self.killed.set()

    async def _run(self) -> int:
        code = 0
        match self.command:
            case ["cat"] if self._input:
                while octets := await self._input.read(65536):
                    self._output.write(octets)
            case ["fail", number, text]:
                (self._errors or self._output).write(text.encode())
                code = int(number)
            case ["hold"]:
                await self.killed.wait()
            case words:
                self._output.write(" ".join(words).encode() + b"\n")
        self._output.close()
        if self._errors:
            self._errors.close()
        return code
