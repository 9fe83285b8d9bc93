"""What an agent before this one did, where no journal tells: marks outside of it do."""

from squall.clock import Clock
from squall.errors import TryAgain
from squall.node.journal import Touched
from squall.node.notes import LaneKey
from squall.node.rooms import Rooms
from squall.telemetry import logger

AGAIN_SECONDS = 1.0
"""How long to wait for an API that could not tell what carries our marks."""


async def recalled(rooms: Rooms, clock: Clock) -> dict[LaneKey, Touched]:
    """Find every target that carries a mark, as a journal would name it; tries until it can."""
    while True:
        try:
            marked = await rooms.marked()
        except TryAgain as reason:
            logger(__name__).warning("%s", reason)
            await clock.sleep(AGAIN_SECONDS)
            continue
        keys = [(LaneKey(kind, one.id, one.pod_uid, ""), one) for kind, one in marked]
        return {key: Touched(key, "", 0, 0, one.host_network, ()) for key, one in keys}
