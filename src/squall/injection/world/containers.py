"""What an injector may do to the processes of a container."""

from typing import Protocol

from squall.injection.world.target import Target


class Containers(Protocol):
    """The processes of a target, found through its cgroup."""

    async def kill(self, target: Target) -> None:
        """SIGKILL the container's init; its runtime or ours restarts it. Refuses a reused pid."""

    async def alive(self, target: Target) -> bool:
        """Is `target.pid` still the process that was resolved?"""

    async def freeze(self, target: Target) -> None:
        """Stop every process of the pod until `thaw`, by our mark; again changes nothing."""

    async def thaw(self, target: Target) -> None:
        """Let what `freeze` stopped go on; a freeze of somebody else's is left alone."""

    async def frozen(self, target: Target) -> bool:
        """Has a freeze of ours hold of it, as the kernel tells?"""
