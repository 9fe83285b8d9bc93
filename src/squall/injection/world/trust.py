"""What an injector may do to the lists of authorities that programs of a target trust."""

from collections.abc import Mapping
from typing import Protocol

from squall.injection.world.target import Target


class Trust(Protocol):
    """The lists of trusted authorities in the containers of a target's pod.

    Lists that cannot be changed, as on a file system that is read only, are left out. Whatever
    else is in a list stays as it is, byte by byte.
    """

    async def roots(self, target: Target) -> str:
        """Read whom the target trusts without us, as PEM; empty where no list can be changed."""

    async def ours(self, target: Target) -> Mapping[str, str]:
        """Read what of ours is in any list: certificates as PEM, by mark."""

    async def apply(self, target: Target, wanted: Mapping[str, str]) -> None:
        """Make exactly `wanted` be what of ours is in every list; by mark, of one line each."""
