"""What whoever installs or removes is told while it goes on."""

from typing import Protocol


class Progress(Protocol):
    """Shows work that takes a while."""

    def done(self, line: str) -> None:
        """Tell what was done, for good."""

    def waiting(self, line: str) -> None:
        """Tell what is being waited for; the next call of either method takes its place."""


class Lines:
    """Keeps what it is told, for tests and for reports."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def done(self, line: str) -> None:
        """Keep it."""
        self.lines.append(line)

    def waiting(self, line: str) -> None:
        """Keep it, once in a row."""
        if self.lines[-1:] != [line]:
            self.lines.append(line)
