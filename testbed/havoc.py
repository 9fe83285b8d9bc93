"""A plan of what dies when, drawn from a seed, so that the same seed kills the same again."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Victim(StrEnum):
    """What is killed with SIGKILL."""

    UP = "up"
    """API, controller and agent; a supervisor starts it again."""
    HOLDER = "holder"
    """One process that holds faults in a target."""


class Ending(StrEnum):
    """How a round ends, after its kills."""

    DELETED = "the experiments are deleted"
    ABANDONED = "nobody starts anything again"
    OUTAGE = "everything of ours dies, and is started again"
    RESTARTED = "the target's container is killed"
    REPLACED = "the target's pod is deleted"
    REBOOT = "everything dies, and the run directory is empty"


@dataclass(frozen=True, slots=True)
class Blow:
    """One kill: something is begun, and in the midst of it somebody dies."""

    begins: str
    """Name of an experiment that is applied; the same again is deleted."""
    after_seconds: float
    victim: Victim


@dataclass(frozen=True, slots=True)
class Round:
    """What happens to one installation."""

    number: int
    blows: tuple[Blow, ...]
    ending: Ending

    def __str__(self) -> str:
        blows = (f"{b.begins}+{b.after_seconds * 1000:.0f}ms:{b.victim}" for b in self.blows)
        return f"round {self.number}: {' '.join(blows)}, then {self.ending}"


LONGEST_SECONDS = 0.4
"""An injection and its first proof take less."""


def rounds(seed: int, names: list[str], *, each: int, blows: int) -> Iterator[Round]:
    """Draw `each` rounds for every ending, of so many blows; every experiment is met equally."""
    for number, ending in enumerate(list(Ending) * each):
        draw = Random(f"{seed} {number}")  # noqa: S311  (to be repeated, not to be secret)
        order = draw.sample(names, len(names)) * blows
        yield Round(
            number,
            tuple(
                Blow(
                    begins,
                    draw.uniform(0, LONGEST_SECONDS),
                    Victim.UP if draw.random() < 0.6 else Victim.HOLDER,  # noqa: PLR2004
                )
                for begins in order[:blows]
            ),
            ending,
        )
