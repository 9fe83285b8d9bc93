"""Progress of long work: a moving line on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from squall.installation.progress import Progress

if TYPE_CHECKING:  # loaded only where it is shown: processes that stay must be small
    from rich.console import Console
    from rich.status import Status


@contextmanager
def shown() -> Iterator[Progress]:
    """Show progress on standard output until the end of the block."""
    if not sys.stdout.isatty():
        yield _Plain()
        return
    from rich.console import Console  # noqa: PLC0415

    console = Console()
    with console.status("starting") as status:
        yield _Moving(console, status)


class _Plain:
    """A line for each new thing; what is waited for is told when it changes."""

    def __init__(self) -> None:
        self._waited = ""

    def done(self, line: str) -> None:
        print(line, flush=True)  # noqa: T201  (this is what the user reads)

    def waiting(self, line: str) -> None:
        if line != self._waited:
            self._waited = line
            self.done(line)


class _Moving:
    def __init__(self, console: "Console", status: "Status") -> None:
        self._console, self._status = console, status

    def done(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False)

    def waiting(self, line: str) -> None:
        from rich.markup import escape  # noqa: PLC0415

        self._status.update(escape(line))
