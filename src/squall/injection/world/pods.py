"""What an injector may ask of the Kubernetes API about the pod that is its target."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from squall.injection.world.target import Target


@dataclass(frozen=True, slots=True)
class PodState:
    """How a pod stands."""

    stopped: bool | None
    """Does it do nothing, by our doing? None: it was told to, and has not answered yet."""
    ready: bool
    """Does the API call it ready?"""


class Pods(Protocol):
    """The pod of a target."""

    async def delete(self, target: Target, *, grace_seconds: int) -> None:
        """Delete this very pod (by uid); raises `TargetGone` where it is gone already."""

    async def exists(self, target: Target) -> bool:
        """Is there still a pod with this name and uid that is not being deleted?"""

    async def stop(self, target: Target) -> None:
        """Make this very pod do nothing until `let_go`, by our mark; again changes nothing."""

    async def let_go(self, target: Target) -> None:
        """Let what `stop` stopped go on; what somebody else stopped is left alone."""

    async def state(self, target: Target) -> PodState:
        """See how this very pod stands; raises `TargetGone` where it is gone."""

    async def all_stopped(self) -> Sequence[Target]:
        """Find every pod that carries our mark; none where the marks are on the node alone."""
