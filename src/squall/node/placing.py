"""Put each assignment where it belongs: into its lane, or at once into its report."""

from squall.api.node_fault import NodeFaultRecord, Proof
from squall.injection.contract import Verdict
from squall.node.assignments import Assignment, Ended, Wanted
from squall.node.holdings import Judged
from squall.node.leases import Standing
from squall.node.limits import Refusal
from squall.node.notes import LaneKey
from squall.node.reports import Reports

UNMEASURED = Proof(
    verdict=Verdict.INCONCLUSIVE.value, measured="nobody measured it; was the agent restarted?"
)

Lanes = dict[LaneKey, Wanted]
"""What every lane shall do; has a place for each that is at work already."""


def place(
    assignment: Assignment, judged: Judged, lanes: Lanes, reports: Reports, *, stopping: bool
) -> None:
    """Place one assignment.

    Args:
        assignment: one fault on one target.
        judged: its NodeFault, and whether that may act now.
        lanes: gets it, where there is something to do on the target.
        reports: gets it, where there is nothing.
        stopping: is the agent taking everything back because it ends?
    """
    if judged.standing is Standing.WAITS:
        reports.failed(assignment, judged.why)
    elif assignment.one_shot:
        _place_strike(assignment, judged, lanes, reports, stopping=stopping)
    elif judged.standing is Standing.RUNS:
        lanes.setdefault(assignment.key, Wanted()).live.append(assignment)
    elif assignment.key in lanes or reports.shows_injected(assignment):
        ended = Ended(assignment, judged.why)
        lanes.setdefault(assignment.key, Wanted()).ended.append(ended)
    else:
        reports.ended(assignment, judged.why)


def place_refused(assignment: Assignment, refusal: Refusal, lanes: Lanes, reports: Reports) -> None:
    """Place a fault that must not act: what acts already is taken back, and why is told."""
    record = reports.record(assignment)
    if not refusal.final:
        reports.failed(assignment, refusal.why)
    elif assignment.one_shot:
        if record is not None and not record.final:
            reports.refused(assignment.fault_uid, assignment.target, refusal.why)
    elif assignment.key in lanes or reports.shows_injected(assignment):
        ended = Ended(assignment, refusal.why)
        lanes.setdefault(assignment.key, Wanted()).ended.append(ended)
    else:
        reports.refused(assignment.fault_uid, assignment.target, refusal.why)


def _place_strike(
    assignment: Assignment, judged: Judged, lanes: Lanes, reports: Reports, *, stopping: bool
) -> None:
    """Order a strike that has no outcome yet; one that was done has nothing to take back."""
    record = reports.record(assignment)
    if record is None:
        return
    if judged.standing is Standing.RUNS:
        if not record.final:
            lanes.setdefault(assignment.key, Wanted()).strikes.append(assignment)
        elif _unmeasured(assignment, record) and assignment.key not in lanes:
            reports.proved(assignment, UNMEASURED)
    elif not stopping and not (judged.why and record.final):
        reports.ended(assignment, judged.why)


def _unmeasured(assignment: Assignment, record: NodeFaultRecord) -> bool:
    return assignment.proof and record.phase == "Injected" and record.proof is None
