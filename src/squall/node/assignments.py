"""What each target of this node shall feel, worked out from the NodeFaults. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from pydantic import ValidationError

from squall.api.node_fault import NodeFaultSpec, NodeFaultTarget, sealing_context
from squall.api.wire import Fault
from squall.errors import InvalidFault, Unsupported
from squall.injection.kind import FaultKind
from squall.node.leases import Held
from squall.node.notes import LaneKey
from squall.node.targets import lane_key
from squall.sealing import unseal


@dataclass(frozen=True, slots=True)
class Assignment:
    """One fault on one target: what one record of a NodeFault asks for."""

    fault_uid: str
    """uid of the NodeFault."""
    source: str
    created: datetime
    """Of the experiment; faults on one target merge oldest first."""
    key: LaneKey
    target: NodeFaultTarget
    fault: Fault
    one_shot: bool = False
    proof: bool = True
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False, hash=False)
    """Values of Secrets, opened."""

    @property
    def order(self) -> tuple[datetime, str]:
        """Oldest first; the source decides between faults of one moment."""
        return self.created, self.source


class Refused(NamedTuple):
    """A record that this agent will never carry out."""

    target: NodeFaultTarget
    why: str


class Ended(NamedTuple):
    """A fault that shall not act any more."""

    assignment: Assignment
    reason: str
    """Why the agent ended it by itself; empty when it was told to."""


@dataclass(slots=True)
class Wanted:
    """What one lane shall do."""

    live: list[Assignment] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    strikes: list[Assignment] = field(default_factory=list)


def assigned(
    held: Held, kinds: Mapping[str, FaultKind], sealing_key: bytes
) -> Iterator[Assignment | Refused]:
    """Read a NodeFault: one assignment, or the reason for none, for each of its targets.

    Args:
        held: the NodeFault.
        kinds: that this agent knows, by name.
        sealing_key: opens what Secrets are sealed in.
    """
    for target in held.spec.targets:
        try:
            yield _assignment(held, target, kinds, sealing_key)
        except (InvalidFault, Unsupported) as refusal:
            yield Refused(target, str(refusal))


def _assignment(
    held: Held, target: NodeFaultTarget, kinds: Mapping[str, FaultKind], sealing_key: bytes
) -> Assignment:
    spec = held.spec
    name = spec.experiment.kind
    kind = kinds.get(name)
    if kind is None:
        raise Unsupported(f"this agent knows no {name}; update it to the controller's version")
    raw = spec.faults.get(target.selector_key)
    if raw is None:
        raise InvalidFault(f"{target.id}: NodeFault has no fault for key {target.selector_key!r}")
    if spec.when_cut_off == "hold" and spec.deadline is None:
        # It could cut this agent off without a moment at which it surely ends.
        raise InvalidFault(f"{target.id}: whenCutOff: hold needs a duration")
    try:
        fault = kind.fault.model_validate(raw)
    except ValidationError as wrong:
        raise InvalidFault(f"{name} as sent to this node: {wrong}") from wrong
    return Assignment(
        held.uid,
        f"{spec.experiment.uid}/{target.selector_key}",
        spec.experiment.created,
        lane_key(name, target),
        target,
        fault,
        spec.one_shot,
        spec.proof,
        _secrets(spec, sealing_key),
    )


def _secrets(spec: NodeFaultSpec, sealing_key: bytes) -> Mapping[str, bytes]:
    """Open what is sealed; nobody needs it to take a fault back."""
    sealed = spec.sealed
    if sealed is None or spec.desired_phase == "Stop":
        return {}
    if sealed.problem:
        raise InvalidFault(sealed.problem)
    try:
        return _opened(sealing_key, sealed.box, sealing_context(spec))
    except ValueError as wrong:
        raise InvalidFault(f"values of Secrets cannot be opened on this node: {wrong}") from wrong


@lru_cache(maxsize=256)
def _opened(sealing_key: bytes, box: str, context: str) -> Mapping[str, bytes]:
    """Open each box once: plans are made often."""
    return MappingProxyType(dict(unseal(sealing_key, box, context)))
