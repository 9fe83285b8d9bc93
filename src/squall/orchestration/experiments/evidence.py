"""What the agents say about each target, and how far it can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from squall.api.node_fault import NodeFaultRecord, NodeFaultTarget, Proof
from squall.orchestration.experiments.facts import Assigned, Key

LONGEST_WORD = 1024
"""Characters of anything an agent says that go into the experiment, which must fit into etcd."""
MOST_SAMPLES = 32
"""Of one moment of a proof."""

_WORDS = ("verdict", "asked", "measured", "way")


class Evidence(StrEnum):
    """How one target stands, as its agent tells."""

    NONE = "none"
    """No word since the newest order."""
    INJECTED = "injected"
    CLEAN = "clean"
    """Without the fault; where it should have it, the agent goes on trying."""
    SETTLED = "settled"
    """Without the fault, and the agent will not try again: gone, refused, interrupted."""


@dataclass(frozen=True, slots=True)
class Report:
    """The word of an agent about one target."""

    evidence: Evidence
    node: str = ""
    message: str = ""
    proof: Proof | None = None


def reports(assigned: Sequence[Assigned]) -> dict[Key, Report]:
    """Read what agents say about every target that is assigned to one."""
    found: dict[Key, Report] = {}
    for one in assigned:
        said = {(r.selector_key, r.id): r for r in one.status.targets}
        for target in one.spec.targets:
            key = (target.selector_key, target.id)
            found[key] = _report(one, target, said.get(key))
    return found


def unassigned(key: Key, assigned: Sequence[Assigned]) -> Report:
    """Read what is known of a target that was taken off every NodeFault.

    Its agent shows it until it is restored, so it is clean when every agent has seen the newest
    spec and none shows it any more.
    """
    shown = any((r.selector_key, r.id) == key for one in assigned for r in one.status.targets)
    clean = not shown and all(one.answered for one in assigned)
    return Report(Evidence.CLEAN if clean else Evidence.NONE)


def _report(one: Assigned, target: NodeFaultTarget, record: NodeFaultRecord | None) -> Report:
    node = one.spec.node_name
    if record is not None:
        record = _bounded(record)
    if record is None or record.incarnation != target.incarnation:
        return Report(Evidence.NONE, node)
    if record.phase == "Injected":
        # An older spec asked for it too, so the generation does not matter here.
        return Report(Evidence.INJECTED, node, record.message, record.proof)
    if not one.answered:
        return Report(Evidence.NONE, node, proof=record.proof)
    evidence = Evidence.SETTLED if record.final else Evidence.CLEAN
    return Report(evidence, node, record.message, record.proof)


def _bounded(record: NodeFaultRecord) -> NodeFaultRecord:
    """Cut off what no honest agent says, so that no experiment grows too large to be written."""
    proof = record.proof
    if proof is not None:
        proof = proof.model_copy(
            update={name: getattr(proof, name)[:LONGEST_WORD] for name in _WORDS}
            | {
                name: dict(islice(getattr(proof, name).items(), MOST_SAMPLES))
                for name in ("before", "during", "after")
            }
        )
    message = record.message[:LONGEST_WORD]
    return record.model_copy(update={"message": message, "proof": proof})
