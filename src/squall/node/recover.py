"""Taking everything back from the journal alone: no API, no controller, no agent."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from squall.clock import Clock
from squall.errors import InvalidFault, TargetGone, TryAgain, Unsupported
from squall.injection.kind import FaultKind
from squall.injection.world import World
from squall.injection.world.target import Target
from squall.node.journal import Journal, Noted, Touched
from squall.node.rooms import Rooms
from squall.node.targets import Processes, last_known

TRIES = 20
PAUSE_SECONDS = 0.5
"""Between tries: ten seconds in all for a target that is busy."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What came of one target."""

    kind: str
    target: str
    """Record id."""
    outcome: str
    """`restored`, `gone`, or why it could not be restored."""

    @property
    def clean(self) -> bool:
        """True when nothing of ours is on the target."""
        return self.outcome in {"restored", "gone"}


async def recover(
    journal: Journal, kinds: Mapping[str, FaultKind], world: World, processes: Processes
) -> list[Recovered]:
    """Restore every target that the journal names, all at once.

    Then the faults are marked as interrupted, so that an agent that comes back does not begin them
    again. What could not be restored stays in the journal.

    Args:
        journal: held by no agent.
        kinds: the fault kinds of this installation, by name.
        world: what injectors act through.
        processes: finds containers on this node.
    """
    touched = journal.touched()
    running = await processes.resolve({t.container_id for t in touched if t.container_id})
    rooms = Rooms(kinds, world)
    outcomes = await asyncio.gather(
        *(_restore(journal, rooms, world.clock, each, _target(each, running)) for each in touched),
        return_exceptions=True,  # a bug in one room must not keep the others from restoring
    )
    journal.note(_interrupted(fault) for fault in journal.faults())
    return [
        Recovered(each.key.kind, each.key.target, str(outcome) or repr(outcome))
        for each, outcome in zip(touched, outcomes, strict=True)
    ]


def _target(touched: Touched, running: Mapping[str, tuple[int, int]]) -> Target:
    if process := running.get(touched.container_id):
        return replace(last_known(touched), pid=process[0], started=process[1])
    return last_known(touched)


async def _restore(
    journal: Journal, rooms: Rooms, clock: Clock, touched: Touched, target: Target
) -> str:
    outcome, key = "", touched.key
    for _ in range(TRIES):
        try:
            await rooms.injector(key.kind).converge(target, (), journal.memory(key))
        except TryAgain as busy:
            outcome = str(busy)
            await clock.sleep(PAUSE_SECONDS)
        except TargetGone:
            outcome = "gone"
            break
        except (Unsupported, InvalidFault) as refusal:
            outcome = f"not restored: {refusal}"
            break
        else:
            outcome = "restored"
            break
    # The network of a pod outlives its containers: whether it is gone too, only an agent that
    # sees the pod can tell.
    if outcome == "restored" or (outcome == "gone" and key.container):
        with suppress(TryAgain):  # to take it back once more would do no harm
            journal.restored(key)
    return outcome


def _interrupted(fault: Noted) -> Noted:
    generation = int(fault.object["metadata"].get("generation", 1))
    if fault.interrupted == generation:
        return fault
    return replace(fault, interrupted=generation, reason="taken back by squall recover")
