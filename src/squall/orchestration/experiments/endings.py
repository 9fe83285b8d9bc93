"""NodeFaults: when the last word on one has been said, and what becomes of those nobody wants."""

from squall.orchestration.experiments.evidence import Evidence, reports
from squall.orchestration.experiments.facts import Assigned, Decision, Facts


def taken_back(one: Assigned) -> bool:
    """Does the agent say that nothing of this NodeFault is left?"""
    if one.spec.desired_phase != "Stop" or not one.answered:
        return False
    return all(r.evidence in {Evidence.CLEAN, Evidence.SETTLED} for r in reports([one]).values())


def emptied(one: Assigned) -> bool:
    """Has every target been taken off this NodeFault, and its agent nothing left to show?"""
    return not one.spec.targets and one.answered and not one.status.targets


def orphaned(facts: Facts) -> Decision:
    """Remove what an experiment left behind that is gone: deleted by force, or a write came late.

    An agent restores the targets of a NodeFault that vanishes, and nobody is left to be told.
    """
    return Decision(remove=tuple(one.name for one in facts.assigned))
