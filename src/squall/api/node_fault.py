"""The two kinds of `squall.dev/v1alpha1` between controller and agent: NodeFault and Halt."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from squall.api.policy import Extent
from squall.api.wire import Wire


class ExperimentReference(Wire):
    """The experiment a NodeFault belongs to."""

    kind: str
    namespace: str
    name: str
    uid: str
    created: datetime
    """Faults on one target merge oldest first."""


class NodeFaultTarget(Wire):
    """One record of the experiment that lives on this node."""

    id: str
    """Record id: `namespace/pod` or `namespace/pod/container`."""
    selector_key: str
    """Which entry of `faults` it gets: `.` or `.Target`."""
    pod_uid: str
    container_id: str = ""
    """With the runtime's prefix, as in the pod's status; empty until the container runs."""
    host_network: bool = False
    incarnation: int = 0
    """Raised by the controller when a live selection follows a restarted container."""


class SealedValues(Wire):
    """What the agent needs of Secrets, such that nobody else can read it."""

    recipient: str = ""
    """Public key of the agent that it is sealed for."""
    box: str = ""
    """Base64; empty where there is a problem."""
    problem: str = ""
    """Why there are no values; the faults cannot act then."""


class NodeFaultSpec(Wire):
    """What one node's agent shall make true, and until when."""

    node_name: str
    experiment: ExperimentReference
    desired_phase: Literal["Run", "Stop"]
    """Stop takes everything back and keeps the targets listed, so that their end is reported."""
    one_shot: bool = False
    """True: strike each target at most once; nothing to take back."""
    faults: dict[str, dict[str, Any]] = Field(
        json_schema_extra={"additionalProperties": {"x-kubernetes-preserve-unknown-fields": True}}
    )
    """What targets get, by selector key; each is the `fault` model of the kind's room."""
    targets: list[NodeFaultTarget]
    deadline: datetime | None = None
    """When the agent takes everything back by itself, whoever is silent."""
    when_cut_off: Literal["restore", "hold"] = "restore"
    extent: dict[str, Extent] = Field(default_factory=dict)
    """How much of what each selector matches is hit, over all nodes; by selector key. Agents check
    it against the policy of their installation."""
    sealed: SealedValues | None = None
    """Values of Secrets, where the faults need any."""
    proof: bool = True
    """False above 1,000 targets: keep the object small."""


def sealing_context(spec: NodeFaultSpec) -> str:
    """Say where sealed values belong: a box in any other NodeFault cannot be opened."""
    return f"{spec.experiment.uid}/{spec.node_name}"


class Proof(Wire):
    """Was the fault felt?"""

    verdict: str
    """Confirmed, Mismatch, Inconclusive, Interrupted or Unknown."""
    asked: str = ""
    measured: str = ""
    way: str = ""
    """passive: counted by the means; active: measured by a probe of ours."""
    before: dict[str, float] = Field(default_factory=dict)
    during: dict[str, float] = Field(default_factory=dict)
    after: dict[str, float] = Field(default_factory=dict)
    at: datetime | None = None


class NodeFaultRecord(Wire):
    """How one target stands."""

    id: str
    selector_key: str
    phase: Literal["Not Injected", "Injected"]
    incarnation: int = 0
    message: str = ""
    """Why it does not stand where it should; empty when it does."""
    final: bool = False
    """True when the agent will not try again: gone, refused, interrupted, struck."""
    proof: Proof | None = None
    injected_at: datetime | None = None
    recovered_at: datetime | None = None


class NodeFaultStatus(Wire):
    """Evidence from the node."""

    observed_generation: int = 0
    targets: list[NodeFaultRecord] = Field(default_factory=list)


class HaltSpec(Wire):
    """While one Halt exists, every agent restores all targets and refuses new faults."""

    reason: str = ""
    """Why, as it is shown on every experiment that is stopped."""
