"""Processes that hold faults in network namespaces: at most one of a module in each.

Everything that a namespace is given hangs on its process: when that ends, by whatever cause, the
traffic is free again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar
from weakref import WeakValueDictionary

from squall.errors import TargetGone
from squall.injection.world.target import Target
from squall.linux import namespaces
from squall.linux.holder import Holder, begun, forget
from squall.linux.namespaces import Namespace


class NamespaceHolder(Holder):
    """A process inside a network namespace."""

    module: ClassVar[str]
    """Subcommand of squall-node."""

    @classmethod
    async def start(cls, netns: Path | str, path: Path, *, lease_seconds: float) -> Self:
        """Start a process inside `netns`, as `/proc/PID/ns/net`; see `Holder.begin`."""
        return await cls.begin(cls.module, {"netns": str(netns)}, path, lease_seconds=lease_seconds)

    async def let_go(self) -> bool:
        """Let nothing be in force any more; True once the process has ended.

        Where it stays, it is for what is still under way, and ends with that by itself.
        """
        await self.quit()
        return True


H = TypeVar("H", bound=NamespaceHolder)


@dataclass(slots=True)
class _Hold(Generic[H]):
    """A process of ours, and whom it is for."""

    process: H
    target: Target


class NamespaceHolders(Generic[H]):
    """Finds, starts and ends the processes of one module.

    Args:
        process: what they are.
        run: folder for their sockets, and nobody else's; made when the first of them starts, and
            removed with the last.
        lease_seconds: how long they outlive the agent.
    """

    def __init__(self, process: type[H], run: Path, *, lease_seconds: float) -> None:
        self._process, self._run, self.lease_seconds = process, run, lease_seconds
        self._holds: dict[int, _Hold[H]] = {}
        self._leaving: dict[H, asyncio.Task[None]] = {}
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        """One for each namespace that somebody is inside of, or waits for."""

    @asynccontextmanager
    async def inside(self, target: Target) -> AsyncIterator[Namespace]:
        """Give the namespace of a target to one at a time.

        Raises:
            TargetGone: its process has ended.
        """
        try:
            namespace = namespaces.of(target)
        except TargetGone:
            await self._let_go_of_the_gone()
            raise
        async with self._lock(namespace.inode):
            yield namespace

    async def connected(self, namespace: Namespace, target: Target) -> H | None:
        """Find the process of a namespace, be it of an agent before us; None where there is none.

        Its number cannot be taken by another namespace: the process itself keeps it in use.
        """
        hold = self._holds.get(namespace.inode)
        if hold and not hold.process.gone.is_set():
            hold.target = target
            return hold.process
        self._holds.pop(namespace.inode, None)
        if process := await self._process.connect(self._socket(namespace.inode)):
            self._holds[namespace.inode] = _Hold(process, target)
        return process

    async def start(self, namespace: Namespace, target: Target) -> H:
        """Start the process of a namespace that has none."""
        self._run.mkdir(parents=True, exist_ok=True, mode=0o700)
        path, lease = self._socket(namespace.inode), self.lease_seconds
        process = await self._process.start(namespace.path, path, lease_seconds=lease)
        self._holds[namespace.inode] = _Hold(process, target)
        return process

    async def end(self, namespace: Namespace, process: H | None) -> None:
        """End the process of a namespace, and remove what it left; there may be none any more."""
        inode = namespace.inode
        if process and not await process.let_go():
            if process not in self._leaving:
                self._leaving[process] = asyncio.create_task(self._see_off(inode, process))
            return
        self._forget(inode)

    async def close(self) -> None:
        """Drop every connection; what is in force stays for one lease."""
        for task in self._leaving.values():
            task.cancel()
        self._leaving.clear()
        for hold in self._holds.values():
            hold.process.close()
        self._holds.clear()

    async def end_all(self) -> None:
        """End every process in the folder, those of agents before us too: all traffic is free."""
        for path in begun(self._run):
            if process := await self._process.connect(path):
                await process.quit()
            forget(path)
        await self.close()

    async def _end(self, inode: int, process: H | None) -> None:
        if process:
            await process.quit()
        self._forget(inode)

    async def _see_off(self, inode: int, process: H) -> None:
        """Wait for a process that ends by itself, unless it is in use again."""
        await process.gone.wait()
        async with self._lock(inode):
            self._leaving.pop(process, None)
            process.close()
            hold = self._holds.get(inode)
            if hold is None or hold.process is not process:
                return
            if self._socket(inode).exists():
                self._holds.pop(inode)  # somebody else has taken it over, or it was killed
            else:
                self._forget(inode)

    def _forget(self, inode: int) -> None:
        self._holds.pop(inode, None)
        forget(self._socket(inode))

    def _lock(self, inode: int) -> asyncio.Lock:
        return self._locks.setdefault(inode, asyncio.Lock())

    def _socket(self, inode: int) -> Path:
        return self._run / f"{inode}.sock"

    async def _let_go_of_the_gone(self) -> None:
        """End processes whose target has gone: nobody else keeps its namespace."""
        for inode in list(self._holds):
            async with self._lock(inode):
                # Whoever was inside may have put another process here, or have one for a pod that
                # took over the namespace of one that is gone: it is neither ended nor forgotten.
                hold = self._holds.get(inode)
                if hold is not None and not namespaces.alive(hold.target):
                    await self._end(inode, hold.process)
