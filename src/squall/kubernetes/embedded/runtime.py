"""What the API server asks of the containers behind its Pods: their logs, and commands in them."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from squall.api.cluster import Object


class Input(Protocol):
    """The writing end of a command's standard input."""

    def write(self, octets: bytes) -> None:
        """Queue octets; never blocks."""

    async def drain(self) -> None:
        """Wait until the command has read enough; its end is not an error here."""

    def close(self) -> None:
        """End of file for the command; again changes nothing."""


class Output(Protocol):
    """The reading end of a command's standard output or error."""

    async def read(self, limit: int = -1, /) -> bytes:
        """Read what is there, up to `limit` octets; empty at the end."""


class Session(Protocol):
    """One command that runs inside a container."""

    @property
    def stdin(self) -> Input | None:
        """None where the command was started without standard input."""

    @property
    def stdout(self) -> Output:
        """With a terminal, both streams arrive here."""

    @property
    def stderr(self) -> Output | None:
        """None with a terminal."""

    async def wait(self) -> int:
        """Wait for the end and return the exit status; 128 + n after signal n."""

    def resize(self, columns: int, rows: int) -> None:
        """Tell the terminal its size; nothing without one."""

    def kill(self) -> None:
        """SIGKILL the command; to be called where its client goes away. Again changes nothing."""


class Runtime(Protocol):
    """The containers of this host, as the `log` and `exec` subresources of a Pod need them.

    Every method takes a stored Pod and the name of one of its containers; an unknown container
    raises `ApiError` 400, one that does not run (exec) or has no log here raises `ApiError` 400
    with the reason, as a kubelet does.
    """

    def logs(
        self,
        pod: Object,
        container: str,
        *,
        follow: bool,
        tail_lines: int | None,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        """Read what the container wrote, stdout and stderr in one; close it with `aclose`.

        Args:
            pod: the Pod as it is stored.
            container: one of its containers.
            follow: go on until the container has ended.
            tail_lines: only the last lines of what is there now; None: all.
            limit_bytes: stop after so many octets.
        """

    def check(self, pod: Object, container: str) -> None:
        """Raise what `start` would raise, as far as the stored Pod tells; starts nothing."""

    async def start(
        self, pod: Object, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Session:
        """Start a command in the namespaces and cgroups of a running container."""


class Commands(Protocol):
    """Starts commands in the namespaces and cgroups of a process of this host."""

    async def start(
        self, pid: int, started: int, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Session:
        """Start one beside process `pid`, which started at `started` (clock ticks after boot).

        Raises `TargetGone` where that process has ended.
        """
