"""When the agent takes faults back by itself: silence of the controller, deadlines, halts."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

from squall.api.cluster import Change, Event, Object
from squall.api.node_fault import HaltSpec, NodeFaultSpec
from squall.node.journal import Noted

CONTROLLER_LEASE = "squall-controller"
"""Name of the Lease that the leading controller renews."""


class Silence:
    """How long the controller has been silent, in boot time.

    Only a renewal that is *seen to change* counts: a connection cut by dropped packets looks like
    a quiet one, and a Lease that is merely listed again says nothing about now.
    """

    def __init__(self, lease_seconds: float, now: float) -> None:
        self._lease_seconds = lease_seconds
        self._heard = now
        self._last: object = None

    def saw(self, lease: Object, now: float) -> None:
        """Take in the Lease as it is; the first sight counts only as a thing to compare with."""
        spec = lease.get("spec", {})
        renewal = (spec.get("holderIdentity"), spec.get("renewTime"))
        if self._last is not None and renewal != self._last:
            self._heard = now
        self._last = renewal

    @property
    def begins(self) -> float:
        """Moment, in boot time, from which on the controller counts as silent."""
        return self._heard + self._lease_seconds


class Halts:
    """The Halts that there are, without those that somebody has lifted already.

    A finalizer may keep a deleted one; whoever made it could else keep others from lifting it.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    @property
    def reason(self) -> str | None:
        """Of one of them; None while there is none."""
        return next(iter(self._reasons.values()), None)

    def saw(self, event: Event) -> bool:
        """Take in a change of one; True when there was one."""
        metadata = event.object["metadata"] if event.change is not Change.SYNCED else {}
        if event.change is Change.DELETED or metadata.get("deletionTimestamp"):
            self._reasons.pop(metadata["name"], None)
        elif event.change is not Change.SYNCED:
            spec = HaltSpec.model_validate(event.object.get("spec") or {})
            self._reasons[event.object["metadata"]["name"]] = spec.reason
        return event.change is not Change.SYNCED


class Standing(Enum):
    """Whether a fault may act now."""

    RUNS = auto()
    STOPS = auto()
    """Somebody wants it gone, or its time is over."""
    WAITS = auto()
    """It was never begun and may not be now; it is begun when it may."""
    INTERRUPTED = auto()
    """The agent took this generation back by itself; it is not begun again."""


@dataclass(frozen=True, slots=True)
class Held:
    """One NodeFault as the agent holds it."""

    noted: Noted
    spec: NodeFaultSpec
    ran: bool = False
    """Was this generation begun?"""

    @property
    def uid(self) -> str:
        """Of the NodeFault."""
        return self.noted.uid

    @property
    def name(self) -> str:
        """Of the NodeFault."""
        return str(self.noted.object["metadata"]["name"])

    @property
    def generation(self) -> int:
        """Raised by the API whenever the spec changes."""
        return int(self.noted.object["metadata"].get("generation", 1))

    @property
    def interrupted(self) -> bool:
        """Did the agent take this generation back by itself?"""
        return self.noted.interrupted == self.generation

    @property
    def outlives_silence(self) -> bool:
        """Only a fault with a deadline may be held while the controller is silent."""
        return self.spec.when_cut_off == "hold" and self.spec.deadline is not None


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides over every fault alike."""

    now: float
    """In seconds of boot time."""
    silent_from: float
    halted: str | None = None
    """Reason of the Halt that exists, or None."""
    stopping: bool = False

    @property
    def silent(self) -> bool:
        """Has the controller been silent for longer than its lease?"""
        return self.now >= self.silent_from


def stands(held: Held, situation: Situation) -> tuple[Standing, str]:
    """Decide whether a fault may act now, and say why not in words for its author."""
    if held.spec.desired_phase == "Stop" or situation.stopping:
        return Standing.STOPS, ""
    if held.interrupted:
        return Standing.INTERRUPTED, held.noted.reason
    if why := _cut_short(held, situation):
        return Standing.INTERRUPTED, why
    if situation.silent and not held.outlives_silence:
        return Standing.WAITS, "waiting for the controller to renew its lease"
    return Standing.RUNS, ""


def _cut_short(held: Held, situation: Situation) -> str:
    """Say why the agent takes a fault back by itself now; empty when it does not."""
    if situation.halted is not None:
        return f"halted: {situation.halted or 'no reason given'}"
    if situation.now >= ends(held):
        return "its time is over and nobody stopped it"
    if situation.silent and held.ran and not held.outlives_silence:
        return "the controller was silent for longer than its lease"
    return ""


def ends(held: Held) -> float:
    """Give the moment, in boot time, at which the agent ends a fault by itself."""
    deadline = held.noted.deadline_boot
    return float("inf") if deadline is None else deadline


def next_moment(held: Held, situation: Situation) -> float:
    """Give the moment at which `stands` may answer differently, if nothing else happens."""
    moments = [ends(held)]
    if not held.outlives_silence:
        moments.append(situation.silent_from)
    return min((moment for moment in moments if moment > situation.now), default=float("inf"))


def with_deadline(noted: Noted, deadline: datetime | None, wall: datetime, boot: float) -> Noted:
    """Fix a deadline in boot time at first sight, so that a stepped wall clock cannot move it."""
    if deadline is None:
        return replace(noted, deadline=None, deadline_boot=None)
    if noted.deadline == deadline and noted.deadline_boot is not None:
        return noted
    left = (deadline - wall).total_seconds()
    return replace(noted, deadline=deadline, deadline_boot=boot + left)
