"""What is known of the targets of one NodeFault, and what of it is not written yet."""

import asyncio

from squall.api.node_fault import NodeFaultRecord, NodeFaultStatus, NodeFaultTarget
from squall.node.leases import Held

RecordKey = tuple[str, str]
"""(record id, selector key)."""


class Sheet:
    """The records of one NodeFault.

    Args:
        held: the NodeFault.
        status: what its status says.
    """

    def __init__(self, held: Held, status: NodeFaultStatus) -> None:
        self.held, self.written = held, status
        self.records = {(record.id, record.selector_key): record for record in status.targets}
        self.leaving: set[RecordKey] = set()
        """Records of targets that the NodeFault lists no more, until they are restored."""
        self.unsettled: set[RecordKey] = set()
        """Records of a Stop whose targets may be at work: until they rest, it is not observed."""
        self.observed = status.observed_generation
        self.due: float | None = None
        """When it is to be written, in seconds of boot time; None: all of it is."""
        self.news = False
        """Is there more to write than numbers?"""
        self.writing = asyncio.Lock()

    def take(self, held: Held) -> None:
        """Take the NodeFault as it is now: a record for each of its targets."""
        began = held.generation != self.held.generation and held.spec.desired_phase == "Run"
        stops = held.spec.desired_phase == "Stop" and not held.spec.one_shot
        self.held = held
        listed = {
            (target.id, target.selector_key): _carried(
                self.records.get((target.id, target.selector_key)), target, afresh=began
            )
            for target in held.spec.targets
        }
        self.leaving = {key for key in self.records if key not in listed}
        self.records = {key: self.records[key] for key in self.leaving} | listed
        self.unsettled = set(listed) if stops and self.observed != held.generation else set()

    def status(self) -> NodeFaultStatus:
        """Say how it stands."""
        if not self.unsettled:
            self.observed = self.held.generation
        return NodeFaultStatus(
            observed_generation=self.observed, targets=list(self.records.values())
        )

    def gathers(self) -> bool:
        """Is a record of it still on its way, with nothing to say about it yet?"""
        wanted = "Injected" if self.held.spec.desired_phase == "Run" else "Not Injected"
        return any(
            record.phase != wanted and not record.final and not record.message
            for record in self.records.values()
        )


def _carried(
    old: NodeFaultRecord | None, target: NodeFaultTarget, *, afresh: bool
) -> NodeFaultRecord:
    if old is None or old.incarnation != target.incarnation:
        return NodeFaultRecord(
            id=target.id,
            selector_key=target.selector_key,
            phase="Not Injected",
            incarnation=target.incarnation,
        )
    if afresh and old.phase == "Not Injected":
        return old.model_copy(update={"final": False, "message": "", "proof": None})
    return old
