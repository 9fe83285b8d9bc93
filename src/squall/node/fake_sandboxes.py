"""Containers in memory, for tests of whoever runs them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

from squall.clock import Clock
from squall.node.sandboxes import Ended, HostContainer, Order, PodName, Sandbox


class FakeSandboxes:
    """Runs nothing; `end` is how a test lets a container end.

    A container obeys SIGTERM at once unless it is in `stubborn`. What `calls` lists was asked for,
    in order. Programs named in `missing` cannot be executed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.sandboxes: dict[str, Sandbox] = {}
        self.orders: dict[str, Order] = {}
        self.networks: dict[PodName, tuple[str, ...]] = {}
        self.stubborn: set[PodName] = set()
        self.missing: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self._changed = asyncio.Condition()
        self._numbers, self._pids = count(2), count(1000)

    async def attach(self, pod: PodName) -> tuple[str, ...]:
        """Give the next pair of addresses."""
        self.calls.append(("attach", str(pod)))
        if pod not in self.networks:
            number = next(self._numbers)
            self.networks[pod] = (f"10.192.0.{number}", f"fd00::{number:x}")
        return self.networks[pod]

    async def detach(self, pod: PodName) -> None:
        """Forget its addresses."""
        self.calls.append(("detach", str(pod)))
        self.networks.pop(pod, None)

    async def attached(self) -> Mapping[PodName, tuple[str, ...]]:
        """List the addresses given."""
        return dict(self.networks)

    async def list(self) -> Sequence[Sandbox]:
        """List what was started and not removed."""
        return list(self.sandboxes.values())

    async def start(self, order: Order) -> Sandbox:
        """Note that it runs now."""
        self.calls.append(("start", str(order.pod)))
        now = self._clock.now().timestamp()
        self.orders[order.id] = order
        sandbox = Sandbox(order.id, order.pod, order.pod_uid, next(self._pids), 1, now)
        if order.command[0] in self.missing:
            end = Ended(127, now, f"{order.command[0]}: not found")
            sandbox = Sandbox(order.id, order.pod, order.pod_uid, ended=end)
        self.sandboxes[order.id] = sandbox
        return sandbox

    async def signal(self, id_: str, number: int) -> None:
        """End it, unless it is stubborn."""
        self.calls.append(("signal", id_))
        if self.sandboxes[id_].pod not in self.stubborn:
            await self.end(id_, 128 + number)

    async def ended(self, id_: str) -> Ended:
        """Wait for `end` or `remove`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._end_of(id_))
        return self._end_of(id_) or Ended(137, 0.0)

    async def remove(self, id_: str) -> None:
        """Forget it."""
        self.calls.append(("remove", id_))
        self.sandboxes.pop(id_, None)
        async with self._changed:
            self._changed.notify_all()

    async def end(self, id_: str, status: int) -> None:
        """Let a container end by itself."""
        end = Ended(status, self._clock.now().timestamp())
        self.sandboxes[id_] = replace(self.sandboxes[id_], ended=end)
        async with self._changed:
            self._changed.notify_all()

    def running(self, pod: PodName) -> Sandbox | None:
        """Find the container of a pod that runs."""
        for sandbox in self.sandboxes.values():
            if sandbox.pod == pod and sandbox.ended is None:
                return sandbox
        return None

    def _end_of(self, id_: str) -> Ended | None:
        if id_ not in self.sandboxes:
            return Ended(137, self._clock.now().timestamp())
        return self.sandboxes[id_].ended


class FakeHostContainers:
    """Containers of another runtime: whatever a test puts into `containers`."""

    def __init__(self) -> None:
        self.containers: dict[str, HostContainer] = {}
        self.signals: list[tuple[str, int]] = []

    async def list(self) -> Sequence[HostContainer]:
        """List them."""
        return list(self.containers.values())

    async def signal(self, container: HostContainer, number: int) -> None:
        """Let it end."""
        self.signals.append((container.id, number))
        self.containers.pop(container.id, None)
