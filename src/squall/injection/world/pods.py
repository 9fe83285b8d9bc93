"""What an injector may ask of the Kubernetes API about the pod that is its target."""

from typing import Protocol

from squall.injection.world.target import Target


class Pods(Protocol):
    """The pod of a target."""

    async def delete(self, target: Target, *, grace_seconds: int) -> None:
        """Delete this very pod (by uid); raises `TargetGone` where it is gone already."""

    async def exists(self, target: Target) -> bool:
        """Is there still a pod with this name and uid that is not being deleted?"""

    async def ready(self, target: Target) -> bool:
        """Does the API call this very pod ready?"""

    async def hold_down(self, target: Target, *, down: bool) -> None:
        """Make its probes fail (Ready is False) while `down`, and answer as before otherwise."""
