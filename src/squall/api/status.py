"""How an experiment stands, as upstream's clients read it."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from squall.api.node_fault import Proof
from squall.api.wire import Wire

NOT_INJECTED = "Not Injected"
NOT_INJECTED_WAIT = "Not Injected/Wait"
INJECTED = "Injected"
INJECTED_WAIT = "Injected/Wait"
PHASES = frozenset({NOT_INJECTED, NOT_INJECTED_WAIT, INJECTED, INJECTED_WAIT})
"""Of a record; there are no others."""

ConditionType = Literal["Selected", "AllInjected", "AllRecovered", "Paused"]


class Condition(Wire):
    """One statement about the whole experiment."""

    type: ConditionType
    """What is stated."""
    status: Literal["True", "False"]
    """Whether it holds."""
    reason: str | None = None
    """Why: a word, and what there is to say about it after a colon."""


class RecordEvent(Wire):
    """One attempt at one target."""

    type: Literal["Succeeded", "Failed"]
    """How it ended."""
    operation: Literal["Apply", "Recover"]
    """What was tried."""
    message: str | None = None
    """Why it failed."""
    timestamp: datetime
    """When it ended."""


class Record(Wire):
    """One target of an experiment."""

    id: str
    """`namespace/pod` or `namespace/pod/container`."""
    selector_key: str
    """Which selector chose it: `.` or `.Target`."""
    phase: str
    """Not Injected, Not Injected/Wait, Injected or Injected/Wait."""
    injected_count: int
    """How often the fault was put in."""
    recovered_count: int
    """How often it was taken back."""
    events: list[RecordEvent] = Field(default_factory=list)
    """The latest attempts, oldest first."""
    proof: Proof | None = None
    """What was measured inside the target."""


class Experiment(Wire):
    """What is wanted, and how each target stands."""

    desired_phase: Literal["Run", "Stop"] | None = None
    """Shall the faults act now?"""
    container_records: list[Record] | None = None
    """Every target; absent until targets were chosen."""
    interrupted: str | None = None
    """Why the faults were taken back before their time; they stay so until paused and resumed."""


class ExperimentStatus(Wire):
    """How the experiment stands."""

    conditions: list[Condition] = Field(default_factory=list)
    """Selected, AllInjected, AllRecovered and Paused, in this order."""
    experiment: Experiment
    """What is wanted, and how each target stands."""
