"""The acting half of the fault kinds: loaded on first use, constructed once."""

import asyncio
from collections.abc import Mapping
from typing import Any

from squall.errors import Unsupported
from squall.injection.contract import Injector, Marking, Probe, Striker
from squall.injection.kind import FaultKind, load
from squall.injection.world import World
from squall.injection.world.target import Target
from squall.telemetry import logger


class Rooms:
    """Gives injectors, strikers and probes by the name of their kind."""

    def __init__(self, kinds: Mapping[str, FaultKind], world: World) -> None:
        self.kinds, self.world = kinds, world
        self._made: dict[str, Any] = {}

    async def warm_up(self) -> None:
        """Load every room now, so that the first fault of a kind does not wait for it."""
        for name, kind in self.kinds.items():
            for path in filter(None, (kind.injector, kind.striker, kind.probe)):
                try:
                    self._constructed(path)
                except ImportError as broken:
                    logger(__name__).error("%s cannot act: %s", name, broken)
                await asyncio.sleep(0)

    async def marked(self) -> list[tuple[str, Target]]:
        """Find (kind, target) of all that carries a mark which outlives every journal.

        Raises:
            TryAgain: nobody can tell now.
        """
        found: list[tuple[str, Target]] = []
        for name, kind in self.kinds.items():
            injector = self.injector(name) if kind.injector else None
            if isinstance(injector, Marking):
                found += [(name, target) for target in await injector.marked()]
        return found

    def injector(self, kind: str) -> Injector[Any]:
        """Give the injector of a kind; `Unsupported` where it has none."""
        made: Injector[Any] = self._required(kind, "injector")
        return made

    def striker(self, kind: str) -> Striker[Any]:
        """Give the striker of a kind; `Unsupported` where it has none."""
        made: Striker[Any] = self._required(kind, "striker")
        return made

    def probe(self, kind: str) -> Probe[Any] | None:
        """Give the probe of a kind, if it has one."""
        path = self.kinds[kind].probe if kind in self.kinds else ""
        made: Probe[Any] | None = self._constructed(path) if path else None
        return made

    def _required(self, kind: str, role: str) -> Any:  # noqa: ANN401  (each room's own)
        if kind not in self.kinds:
            raise Unsupported(f"{kind} is no kind of this installation; which squall injected it?")
        path = getattr(self.kinds[kind], role)
        if not path:
            raise Unsupported(f"{kind} has no {role}; its action is of the other sort")
        return self._constructed(path)

    def _constructed(self, path: str) -> Any:  # noqa: ANN401  (each room's own)
        if path not in self._made:
            self._made[path] = load(path)(self.world)
        return self._made[path]
