"""What the network port asks of the two paths that shapes can take: qdiscs and lanes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from squall.injection.world.network import Counters, Shape
from squall.injection.world.target import Target
from squall.linux.namespaces import Namespace
from squall.linux.nftables import Classified
from squall.linux.packets import Held, Lane, PacketsState


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the process of a namespace must hold, so that shapes act."""

    lanes: tuple[Lane, ...] = ()
    classified: tuple[Classified, ...] = ()
    note: str = ""
    """Kept with the script of the table."""


class Shaping(Protocol):
    """One path; `squall.linux.capabilities` finds out which one a host has."""

    @property
    def name(self) -> str:
        """`netem` or `packets`."""

    async def prepare(
        self, target: Target, namespace: Namespace, shapes: Sequence[Shape]
    ) -> Prepared:
        """Do what must stand before packets are sent along this path.

        Raises:
            Unsupported: the shapes cannot be had on this path; nothing has changed.
        """

    async def shapes(
        self, target: Target, namespace: Namespace, held: Held, listed: str
    ) -> Sequence[Shape]:
        """Read what is in force, from what the process holds and from the kernel."""

    async def tidy(self, target: Target, namespace: Namespace, shapes: Sequence[Shape]) -> None:
        """Remove what `shapes`, now in force, do not need."""

    async def counters(
        self, target: Target, namespace: Namespace, state: PacketsState
    ) -> Mapping[str, Counters]:
        """Read counters by source."""
