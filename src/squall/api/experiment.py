"""What every experiment may say, whatever its fault."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from squall.api.selector import PodSelector
from squall.api.units import Duration, Int64
from squall.api.wire import Flaw

MAIN = "."
"""Selector key of the targets that `spec.selector` chooses."""
TARGET = ".Target"
"""Selector key of the targets that `spec.target.selector` chooses."""


class ExperimentSpec(PodSelector):
    """To whom, for how long, and under which conditions; a kind adds what is done."""

    # Upstream accepts an empty string; it can only mean "not given".
    duration: Annotated[Duration | None, BeforeValidator(lambda value: value or None)] = None
    """How long the faults act, from the creation of the experiment on; without it, until it is
    deleted or paused."""
    remote_cluster: str = ""
    """Name of another cluster to run in; refused where no clusters are registered."""
    seed: Int64 | None = Field(default=None, ge=0)
    """Makes every random choice repeatable: the same seed and pods, the same targets."""
    selection: Literal["once", "live"] = "once"
    """`once` chooses targets at the start; `live` follows restarted and new pods to the end."""
    when_cut_off: Literal["restore", "hold"] = "restore"
    """What a node does that hears nothing for a lease: `restore` its targets, or `hold` the faults
    until `duration` is over."""

    def selectors(self) -> Mapping[str, PodSelector]:
        """Every selector by its key; the order is the order of selection."""
        return {MAIN: self}

    def flaws(self) -> Iterator[Flaw]:
        """Check what could never act, or never end."""
        yield from super().flaws()
        if self.duration is not None and self.duration <= timedelta(0):
            yield Flaw("duration", "would be over before it begins; leave it out for no end")
        if self.remote_cluster:
            yield Flaw(
                "remoteCluster",
                "no remote clusters are registered here; apply it to that cluster itself",
            )
        if self.when_cut_off == "hold" and self.duration is None:
            yield Flaw(
                "duration", "whenCutOff: hold needs it, so that the faults end by themselves"
            )
