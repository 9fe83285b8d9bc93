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

    def too_late(self, assignment: Assignment, why: str) -> None:
        """Report a target that was gone before it could be struck."""
        self._reports.gone(assignment, why)

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


class RepeatableStrikes:
    """Strikes what the API knows by its uid: twice is once, and gone is what was wanted.

    So nothing has to be written down before, and a strike without an answer is tried again.
    """

    def __init__(self, rooms: Rooms, reports: Reports) -> None:
        self._rooms, self._reports = rooms, reports

    async def carry_out(self, assignment: Assignment, target: Target) -> bool:
        """Strike; returns True when the target was struck, by this call or before.

        Raises:
            TryAgain: whether it was struck is unknown; strike again.
        """
        try:
            await self._rooms.striker(assignment.key.kind).strike(target, assignment.fault)
        except TargetGone:
            pass
        except (Unsupported, InvalidFault) as refused:
            self._reports.failed(assignment, str(refused), final=True)
            return False
        self._reports.struck(assignment)
        return True

    def too_late(self, assignment: Assignment, why: str) -> None:
        """Report a target that is gone, by us or by somebody faster."""
        self._reports.struck(assignment)

    def begun(self, assignment: Assignment) -> bool:
        """Tell that any strike may be done again."""
        return False

    def recount(self, assignment: Assignment) -> bool:
        """Know of no strike but those that the NodeFault tells of."""
        return False


def strike_mark(assignment: Assignment) -> str:
    """Name one strike of a NodeFault: a target is struck again only in its next incarnation."""
    target = assignment.target
    return f"{target.id} {target.selector_key} {target.pod_uid} {target.incarnation}"
