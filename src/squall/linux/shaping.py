"""What the network port asks of the two paths that shapes can take: qdiscs and lanes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
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


class TriedShaping:
    """The path that a trial chooses; whoever comes before it has ended waits for it.

    A trial takes a moment that the start of an agent should not wait for.
    """

    def __init__(self, trial: Callable[[], Awaitable[Shaping]]) -> None:
        self._trial, self._found = trial, asyncio.Event()
        self._path: Shaping | None = None

    @property
    def name(self) -> str:
        """As of the path; `untried` before it is known."""
        return self._path.name if self._path else "untried"

    async def find_out(self) -> None:
        """Try; called once."""
        self._path = await self._trial()
        self._found.set()

    async def prepare(
        self, target: Target, namespace: Namespace, shapes: Sequence[Shape]
    ) -> Prepared:
        """Prepare on the path that works here."""
        return await (await self._chosen()).prepare(target, namespace, shapes)

    async def shapes(
        self, target: Target, namespace: Namespace, held: Held, listed: str
    ) -> Sequence[Shape]:
        """Read what is in force on that path."""
        return await (await self._chosen()).shapes(target, namespace, held, listed)

    async def tidy(self, target: Target, namespace: Namespace, shapes: Sequence[Shape]) -> None:
        """Tidy up on that path."""
        await (await self._chosen()).tidy(target, namespace, shapes)

    async def counters(
        self, target: Target, namespace: Namespace, state: PacketsState
    ) -> Mapping[str, Counters]:
        """Read counters on that path."""
        return await (await self._chosen()).counters(target, namespace, state)

    async def _chosen(self) -> Shaping:
        await self._found.wait()
        if self._path is None:
            raise AssertionError("found, but nothing there")
        return self._path
