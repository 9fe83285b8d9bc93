"""What cannot be undone is done at most once, whatever dies in between."""

from squall.api.node_fault import Proof
from squall.errors import InvalidFault, SquallError, TargetGone, Unsupported
from squall.injection.contract import Verdict
from squall.injection.world.target import Target
from squall.node.assignments import Assignment
from squall.node.journal import Journal
from squall.node.reports import Reports
from squall.node.rooms import Rooms


class Strikes:
    """Strikes targets, each marked on disk before."""

    def __init__(self, rooms: Rooms, journal: Journal, reports: Reports) -> None:
        self._rooms, self._journal, self._reports = rooms, journal, reports

    async def carry_out(self, assignment: Assignment, target: Target) -> bool:
        """Strike, unless a strike was begun before; report what came of it.

        Returns True when the target was struck, by this call or before.

        A strike that ended with an error which does not say that nothing was done is Unknown,
        as is one that was begun before a crash: neither is repeated.
        """
        fault, mark = assignment.fault_uid, strike_mark(assignment)
        if not self._journal.strike(fault, mark):
            return self.recount(assignment)
        try:
            await self._rooms.striker(assignment.key.kind).strike(target, assignment.fault)
        except (TargetGone, Unsupported, InvalidFault) as nothing_done:
            self._journal.struck(fault, mark, str(nothing_done))
        except SquallError as unclear:
            self._unknown(assignment, str(unclear))
            return False
        else:
            self._journal.struck(fault, mark)
        return self.recount(assignment)

    def begun(self, assignment: Assignment) -> bool:
        """Was it begun by an agent before this one? What it left is no reason to say "gone"."""
        return self._journal.begun(assignment.fault_uid, strike_mark(assignment))

    def recount(self, assignment: Assignment) -> bool:
        """Report a strike from the journal; returns True when the target was struck."""
        outcome = self._journal.outcome(assignment.fault_uid, strike_mark(assignment))
        if outcome is None:
            self._unknown(assignment, "the agent died while striking; it is not repeated")
        elif outcome:
            self._reports.gone(assignment, outcome)
        else:
            self._reports.struck(assignment)
        return outcome == ""

    def _unknown(self, assignment: Assignment, message: str) -> None:
        self._reports.proved(assignment, Proof(verdict=Verdict.UNKNOWN.value))
        self._reports.failed(assignment, message, final=True)


def strike_mark(assignment: Assignment) -> str:
    """Name one strike of a NodeFault: a target is struck again only in its next incarnation."""
    target = assignment.target
    return f"{target.id} {target.selector_key} {target.pod_uid} {target.incarnation}"
