"""What every fake part of the world shares: it counts its changes and can die before one."""

from typing import Protocol


class Killed(BaseException):
    """The agent's process died here; a BaseException, so that nothing between can survive it."""


class Fate:
    """Counts changes, and kills before one of them.

    Parts of one world share one fate, so that a kill can fall between changes of two parts.
    """

    def __init__(self) -> None:
        self.changes = 0
        """Changes made so far."""
        self.die_before: int | None = None
        """Number of the change, counted from 0, before which the agent dies; None: it lives."""

    def change(self) -> None:
        """Count a change that is about to be made.

        Raises:
            Killed: this is the change before which the agent dies.
        """
        if self.changes == self.die_before:
            raise Killed(f"before change {self.changes}")
        self.changes += 1


class Part(Protocol):
    """Something that laws and survival compare before and after: fake, or on a real kernel."""

    def snapshot(self) -> object:
        """Describe everything that is there, ours or not; equal when nothing differs."""

    def foreign(self) -> object:
        """Describe only what does not carry our mark."""


class Fake:
    """A part of the world in memory; every write of a subclass calls `self.fate.change()` first."""

    def __init__(self, fate: Fate | None = None) -> None:
        self.fate = fate or Fate()

    @property
    def changes(self) -> int:
        """Changes made so far, in every part that shares this fate."""
        return self.fate.changes

    @property
    def die_before(self) -> int | None:
        """The change before which the agent dies."""
        return self.fate.die_before

    @die_before.setter
    def die_before(self, change: int | None) -> None:
        self.fate.die_before = change
