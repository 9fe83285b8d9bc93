"""The files port on Linux: one `squall-node files` process for each container, found by its socket.

It mounts a filter over each volume in the container's mount namespace and moves open files over;
whatever ends it, the container goes on with the true files.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from squall.errors import SquallError, TargetGone
from squall.injection.world.files import (
    Attributes,
    FileCounters,
    FileRule,
    FilesState,
    Mistake,
    Moment,
    Visit,
    Volume,
)
from squall.injection.world.target import Target
from squall.linux import filter_mounts
from squall.linux.holder import Holder, begun, forget
from squall.linux.processes import started
from squall.linux.visits import Visits


class LinuxFiles:
    """Filters the files of targets, seen from the node they run on.

    Args:
        run: folder for the sockets of the processes that hold the faults; made if missing.
        lease_seconds: how long those outlive the agent.
    """

    def __init__(self, run: Path, *, lease_seconds: float) -> None:
        self._run, self._lease_seconds = run, lease_seconds
        self._visits = Visits()
        self._holders: dict[Path, Holder] = {}
        self._locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
        """One for each target that somebody is at, or waits for."""

    async def state(self, target: Target) -> FilesState:
        """Read what was set; a volume whose mount is not there any more is not in force."""
        async with self._at(target) as path:
            holder = await self._connected(path)
            if holder is None:
                return FilesState()
            standing = await _standing(holder, target)
            return FilesState(tuple(map(_volume, standing.values())))

    async def apply(self, target: Target, wanted: FilesState) -> None:
        """Make exactly `wanted` be in force; without any, end the process that held it."""
        async with self._at(target) as path:
            holder = await self._connected(path)
            if wanted.volumes:
                await self._set(target, path, holder, wanted)
            elif holder:
                await holder.quit()
                self._holders.pop(path, None)
            if not wanted.volumes:
                await filter_mounts.given_back(target)
                forget(path)

    async def counters(self, target: Target) -> Mapping[str, FileCounters]:
        """Read counters by source, of all volumes together."""
        async with self._at(target) as path:
            holder = await self._connected(path)
            if holder is None:
                return {}
            counted = (await holder.ask("state"))["counters"]
            return {source: FileCounters(**numbers) for source, numbers in counted.items()}

    async def visit(
        self,
        target: Target,
        volume: str,
        path: str,
        methods: Collection[str],
        *,
        within_seconds: float,
    ) -> Visit:
        """Call a few things on a file that fits, in the target's mount namespace."""
        return await self._visits.visit(
            target, volume, path, methods, within_seconds=within_seconds
        )

    async def close(self) -> None:
        """Drop every connection; what is in force stays for one lease."""
        for holder in self._holders.values():
            holder.close()
        self._holders.clear()

    async def end_all(self) -> None:
        """End every process in the folder, those of agents before us too: all files are true."""
        for path in begun(self._run):
            if holder := await Holder.connect(path):
                await holder.quit()
            forget(path)
        await self.close()

    async def _set(
        self, target: Target, path: Path, holder: Holder | None, wanted: FilesState
    ) -> None:
        if holder is not None and not await _is_whole(holder, target):
            await holder.quit()  # somebody took a mount of ours away; it would not make it anew
            holder = None
        fresh = holder is None
        if holder is None:
            await filter_mounts.given_back(target)  # two filters, one over the other, never
            self._run.mkdir(parents=True, exist_ok=True, mode=0o700)
            who = {"pid": str(target.pid), "started": str(target.started)}
            holder = await Holder.begin("files", who, path, lease_seconds=self._lease_seconds)
            self._holders[path] = holder
        volumes = [asdict(volume) for volume in wanted.volumes]
        request = {"volumes": volumes, "lease": self._lease_seconds, "deadline": None}
        try:
            await holder.ask("set", request)
        except SquallError:
            if fresh:
                await holder.quit()
                self._holders.pop(path, None)
            raise

    @asynccontextmanager
    async def _at(self, target: Target) -> AsyncIterator[Path]:
        """One at a time for each target."""
        if started(target.pid) != target.started:
            self._forget(target)
            raise TargetGone(f"{target.id}: process {target.pid} has ended")
        path = self._socket(target)
        lock = self._locks.setdefault(path, asyncio.Lock())
        async with lock:
            yield path

    def _socket(self, target: Target) -> Path:
        return self._run / f"{target.pid}-{target.started}.sock"

    def _forget(self, target: Target) -> None:
        """Let go of the holder of a target that has ended; it ends by itself, as it sees that."""
        if holder := self._holders.pop(self._socket(target), None):
            holder.close()
        forget(self._socket(target))

    async def _connected(self, path: Path) -> Holder | None:
        """Find the process of a target, be it of an agent before us; None where there is none."""
        holder = self._holders.get(path)
        if holder is not None and not holder.gone.is_set():
            return holder
        self._holders.pop(path, None)
        holder = await Holder.connect(path)
        if holder is not None:
            self._holders[path] = holder
        return holder


async def _standing(holder: Holder, target: Target) -> Mapping[str, Mapping[str, Any]]:
    """Give the volumes that were set and whose mounts are there, by path."""
    state, there = await holder.ask("state"), filter_mounts.of(target)
    # A path may lead through links: where its mount stands, the holder knows.
    at = {path: told["at"] for path, told in state["entered"].items()}
    return {one["path"]: one for one in state["volumes"] if at.get(one["path"]) in there}


async def _is_whole(holder: Holder, target: Target) -> bool:
    held = (await holder.ask("state"))["volumes"]
    return len(await _standing(holder, target)) == len(held)


def _volume(received: Mapping[str, Any]) -> Volume:
    return Volume(received["path"], tuple(_rule(rule) for rule in received["rules"]))


def _rule(received: Mapping[str, Any]) -> FileRule:
    told = received.get("attributes")
    wrong = received.get("mistake")
    read = {
        **received,
        "methods": tuple(received.get("methods") or ()),
        "attributes": _attributes(told) if told else None,
        "mistake": Mistake(**wrong) if wrong else None,
    }
    return FileRule(**read)


def _attributes(received: Mapping[str, Any]) -> Attributes:
    moments = {
        name: Moment(**received[name])
        for name in ("atime", "mtime", "ctime")
        if received.get(name) is not None
    }
    return Attributes(**{**received, **moments})
