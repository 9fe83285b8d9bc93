"""The NodeFaults that an agent holds, and what it decides about each."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic import ValidationError

from squall.api.cluster import Object
from squall.api.node_fault import NodeFaultSpec, NodeFaultStatus
from squall.clock import Clock
from squall.errors import TryAgain
from squall.injection.contract import Verdict
from squall.node.journal import Journal, Noted
from squall.node.leases import Held, Situation, Standing, next_moment, stands, with_deadline
from squall.telemetry import logger

UNWRITTEN_SECONDS = 1.0
"""After a journal that could not be written, when to try again."""


class Judged(NamedTuple):
    """A NodeFault and what is decided about it now."""

    held: Held
    standing: Standing
    why: str
    """In words for its author, where it may not act."""


class Holdings:
    """Holds NodeFaults from the journal first, then as the API gives them."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal, self._clock = journal, clock
        self._held: dict[str, Held] = {}
        self._again_at = float("inf")
        for noted in journal.faults():
            self._take(noted, ran=True)

    def running(self) -> Sequence[Held]:
        """List what the API wants to act."""
        return [held for held in self._held.values() if held.spec.desired_phase == "Run"]

    def hold(self, node_fault: Object) -> Held | None:
        """Take in a NodeFault as the API gives it; None when this agent cannot read it."""
        before = self._held.get(node_fault["metadata"]["uid"])
        wanted = {"metadata": _identity(node_fault["metadata"]), "spec": node_fault["spec"]}
        noted = replace(before.noted, object=wanted) if before else _begun(node_fault, wanted)
        return self._take(noted, ran=before is not None and before.ran)

    def forget(self, uid: str) -> None:
        """Let go of a NodeFault that is gone from the API."""
        self._held.pop(uid, None)
        with suppress(TryAgain):  # `keep_only` of the next agent forgets it again
            self._journal.drop(uid)

    def keep_only(self, uids: set[str]) -> Sequence[str]:
        """Forget what the API does not list any more; returns what was forgotten."""
        gone = [uid for uid in self._held if uid not in uids]
        for uid in gone:
            self.forget(uid)
        return gone

    def judge(self, situation: Situation, *, ready: bool) -> Sequence[Judged]:
        """Decide about every fault; on disk is first which begin and which are taken back.

        Args:
            situation: what decides over all of them.
            ready: has the API been listed? Until then nothing begins.
        """
        judged: list[Judged] = []
        news: dict[str, Held] = {}
        for uid, held in self._held.items():
            now = held
            standing, why = stands(held, situation)
            if standing is Standing.INTERRUPTED and not held.interrupted:
                noted = replace(held.noted, interrupted=held.generation, reason=why)
                now = replace(held, noted=noted)
            elif standing is Standing.RUNS and ready and not held.ran:
                now = replace(held, ran=True)
            if now is not held:
                news[uid] = now
            judged.append(Judged(now, standing, why))
        self._again_at = float("inf")
        try:
            if news:
                self._journal.note(held.noted for held in news.values())
        except TryAgain as unwritten:
            logger(__name__).error("%s", unwritten)
            self._again_at = situation.now + UNWRITTEN_SECONDS
            return [self._unwritten(each, news, str(unwritten)) for each in judged]
        self._held.update(news)
        return judged

    def _unwritten(self, judged: Judged, news: Mapping[str, Held], why: str) -> Judged:
        """Let nothing begin that is not on disk; what is taken back waits for no disk."""
        uid = judged.held.uid
        if judged.standing is Standing.RUNS and uid in news:
            return Judged(self._held[uid], Standing.WAITS, why)
        self._held[uid] = judged.held
        return judged

    def next_moment(self, situation: Situation) -> float:
        """Give the moment, in boot time, at which `judge` may decide differently by itself."""
        moments = (next_moment(held, situation) for held in self._held.values())
        return min((self._again_at, *moments))

    def _take(self, noted: Noted, *, ran: bool) -> Held | None:
        try:
            spec = NodeFaultSpec.model_validate(noted.object["spec"])
        except ValidationError as wrong:
            name = noted.object["metadata"]["name"]
            logger(__name__).error("NodeFault %s is none that this agent reads: %s", name, wrong)
            return None
        wall, boot = self._clock.now(), self._clock.boottime()
        noted = with_deadline(noted, spec.deadline, wall, boot)
        held = Held(noted, spec, ran and spec.desired_phase == "Run")
        self._held[noted.uid] = held
        return held


def _begun(node_fault: Object, wanted: Mapping[str, Any]) -> Noted:
    """Note a NodeFault that the journal does not know, by what its status says of it.

    What an agent before took back by itself is not begun again, though its journal is lost.
    """
    generation = node_fault["metadata"].get("generation", 1)
    status = NodeFaultStatus.model_validate(node_fault.get("status") or {})
    if status.observed_generation == generation:
        for record in status.targets:
            if record.final and record.proof and record.proof.verdict == Verdict.INTERRUPTED:
                return Noted(wanted, interrupted=generation, reason=record.message)
    return Noted(wanted)


def _identity(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: metadata[name] for name in ("name", "uid", "generation") if name in metadata}
