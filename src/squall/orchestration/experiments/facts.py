"""What a step sees, and what it may decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from squall.api.experiment import ExperimentSpec
from squall.api.node_fault import NodeFaultSpec, NodeFaultStatus
from squall.api.policy import Policy
from squall.api.status import Experiment, ExperimentStatus
from squall.injection.kind import FaultKind
from squall.orchestration.experiments.pods import Inventory

Key = tuple[str, str]
"""Selector key and record id: names one target of an experiment."""

EMPTY = ExperimentStatus(experiment=Experiment())


@dataclass(frozen=True, slots=True)
class Seen:
    """One experiment as last read."""

    kind: str
    namespace: str
    name: str
    uid: str
    created: datetime
    deleted: datetime | None = None
    finalizers: tuple[str, ...] = ()
    paused: bool = False
    forced: bool = False
    spec: ExperimentSpec | None = None
    """None where the stored spec cannot be read; `flaw` says why."""
    flaw: str = ""
    status: ExperimentStatus = EMPTY


@dataclass(frozen=True, slots=True)
class Assigned:
    """One NodeFault of the experiment as last read."""

    name: str
    generation: int
    created: datetime
    spec: NodeFaultSpec
    status: NodeFaultStatus = field(default_factory=NodeFaultStatus)

    @property
    def answered(self) -> bool:
        """Has the agent seen the newest spec?"""
        return self.status.observed_generation >= self.generation


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that decides what one experiment needs next."""

    kind: FaultKind
    experiment: Seen | None
    """None when it is gone, but NodeFaults of it were left behind."""
    assigned: Sequence[Assigned] = ()
    inventory: Inventory = field(default_factory=Inventory)
    halt: str | None = None
    """Why everything is halted, while a Halt exists."""
    lease_seconds: float = 60.0
    policy: Policy = field(default_factory=Policy)
    """What the installation lets experiments hit."""
    api_node: str = ""
    """Name of the node that stands for the leading controller, which brings about by itself what
    needs the API alone; empty where the agent of each pod's node does."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """One Kubernetes Event to emit, in upstream's terms."""

    reason: str
    """In CamelCase; in kebab case it is the annotation `chaos-mesh.org/type`."""
    message: str
    component: str
    """What upstream calls the step that emits it."""
    type: Literal["Normal", "Warning"] = "Normal"
    fields: Mapping[str, str] = field(default_factory=dict)
    """Annotations, without the prefix `chaos-mesh.org/`."""
    target: str = ""
    """Id of the one target it is about; empty: about the whole experiment."""
    detail: str = ""
    """What is said of that target and may differ from one to the next."""
    several: str = ""
    """How the message begins when it is said of several targets at once."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write, then what to order, then when to look again.

    Carried out in this order: a finalizer is added, the status written, NodeFaults put, NodeFaults
    removed, events emitted. A crash between any two leaves a trace from which the next step goes
    on. Two things wait for nobody: NodeFaults that only stop are put while the status is written,
    since every target of theirs is in it already; and where the finalizer is dropped, it is so
    first: NodeFaults of an experiment that is gone are removed by whoever finds them.
    """

    hold: bool = False
    """Add the finalizer."""
    status: ExperimentStatus | None = None
    """To be written; None where nothing changed."""
    urgent: bool = True
    """False where the status says nothing that anybody waits for: at most once a second."""
    put: tuple[tuple[str, NodeFaultSpec], ...] = ()
    """NodeFaults to create or to change, by name."""
    remove: tuple[str, ...] = ()
    """Names of NodeFaults to delete."""
    release: bool = False
    """Drop the finalizer, so that the object may vanish."""
    announcements: tuple[Announcement, ...] = ()
    wake_at: datetime | None = None
    """When to decide again, even if nothing changes until then."""
    retry: bool = False
    """Decide again with backoff."""
    follows_pods: bool = False
    """Decide again when pods change."""
