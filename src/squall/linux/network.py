"""The network port on Linux: cuts in an nftables table, shapes in qdiscs or in a packet scheduler.

Everything that a namespace is given hangs on one `squall-node packets` process for it: when that
ends, by whatever cause, the traffic is free again.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from squall.errors import TargetGone
from squall.injection.world.network import Counters, NetworkState, Ping
from squall.injection.world.target import Target
from squall.linux import namespaces, nftables, pings, resolver
from squall.linux.namespaces import Namespace
from squall.linux.packets import Held, PacketsProcess
from squall.linux.shaping import Shaping


@dataclass(slots=True)
class _Hold:
    """A process of ours, and whom it is for."""

    process: PacketsProcess
    target: Target


class LinuxNetwork:
    """Changes the network of targets, seen from the node they run on.

    Args:
        run: folder for the sockets of the processes that hold the faults; made if missing.
        lease_seconds: how long those outlive the agent.
        shaping: the path of shapes.
    """

    def __init__(self, run: Path, *, lease_seconds: float, shaping: Shaping) -> None:
        self._run, self._lease_seconds, self._shaping = run, lease_seconds, shaping
        self._holds: dict[int, _Hold] = {}
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        """One for each namespace that somebody is inside of, or waits for."""

    @property
    def path(self) -> str:
        """How shapes are made here: `netem` or `packets`."""
        return self._shaping.name

    async def state(self, target: Target) -> NetworkState:
        """Read what is in force: the table from the kernel, lanes from the process they live in."""
        async with self._inside(target) as namespace:
            process = await self._connected(namespace, target)
            listed = await process.list() if process else ""
            held = (await process.state()).held if process else Held()
            shapes = await self._shaping.shapes(target, namespace, held, listed)
            return NetworkState(nftables.cuts(listed), tuple(shapes))

    async def apply(self, target: Target, wanted: NetworkState) -> None:
        """Make exactly `wanted` be in force; without any, end the process that held it."""
        async with self._inside(target) as namespace:
            process = await self._connected(namespace, target)
            if wanted.cuts or wanted.shapes:
                shaped = await self._shaping.prepare(target, namespace, wanted.shapes)
                process = process or await self._start(namespace, target)
                script = nftables.script(wanted.cuts, shaped.classified, note=shaped.note)
                await process.set(Held(script, shaped.lanes, self._lease_seconds))
            elif process:
                await process.quit()
                del self._holds[namespace.inode]
            await self._shaping.tidy(target, namespace, wanted.shapes)

    async def counters(self, target: Target) -> Mapping[str, Counters]:
        """Read counters by source, of cuts and shapes together."""
        async with self._inside(target) as namespace:
            process = await self._connected(namespace, target)
            if process is None:
                return {}
            state, listed = await process.state(), await process.list()
            found = dict(nftables.cut_counters(listed))
            for source, counted in (await self._shaping.counters(target, namespace, state)).items():
                found[source] = found[source] + counted if source in found else counted
            return found

    async def ping(
        self, target: Target, address: str, *, count: int, within_seconds: float
    ) -> Ping:
        """Probe an address by ICMP echo from inside the target."""
        namespace = namespaces.of(target)
        return await pings.ping(namespace, address, count=count, within_seconds=within_seconds)

    async def addresses(self, target: Target) -> frozenset[str]:
        """List the target's own addresses."""
        return namespaces.addresses(target)

    async def gateway(self, target: Target, device: str = "") -> str | None:
        """Tell the router of the default route."""
        return namespaces.gateway(target, device)

    async def resolve(self, target: Target, name: str) -> Sequence[str]:
        """Look a name up with the target's own hosts file and name servers."""
        return await resolver.resolve(target, namespaces.of(target), name)

    async def close(self) -> None:
        """Drop every connection; what is in force stays for one lease."""
        for hold in self._holds.values():
            hold.process.close()
        self._holds.clear()

    async def end_all(self) -> None:
        """End every process in the folder, those of agents before us too: all traffic is free."""
        for path in sorted(self._run.glob("*.sock")):
            if process := await PacketsProcess.connect(path):
                await process.quit()
        await self.close()

    @asynccontextmanager
    async def _inside(self, target: Target) -> AsyncIterator[Namespace]:
        """One at a time in each namespace."""
        try:
            namespace = namespaces.of(target)
        except TargetGone:
            await self._let_go_of_the_gone()
            raise
        async with self._lock(namespace.inode):
            yield namespace

    def _lock(self, inode: int) -> asyncio.Lock:
        return self._locks.setdefault(inode, asyncio.Lock())

    def _socket(self, namespace: Namespace) -> Path:
        return self._run / f"{namespace.inode}.sock"

    async def _connected(self, namespace: Namespace, target: Target) -> PacketsProcess | None:
        """Find the process of a namespace, be it of an agent before us; None where there is none.

        Its number cannot be taken by another namespace: the process itself keeps it in use.
        """
        hold = self._holds.get(namespace.inode)
        if hold and not hold.process.gone.is_set():
            hold.target = target
            return hold.process
        self._holds.pop(namespace.inode, None)
        if process := await PacketsProcess.connect(self._socket(namespace)):
            self._holds[namespace.inode] = _Hold(process, target)
        return process

    async def _start(self, namespace: Namespace, target: Target) -> PacketsProcess:
        self._run.mkdir(parents=True, exist_ok=True, mode=0o700)
        path, lease = self._socket(namespace), self._lease_seconds
        process = await PacketsProcess.start(namespace.path, path, lease_seconds=lease)
        self._holds[namespace.inode] = _Hold(process, target)
        return process

    async def _let_go_of_the_gone(self) -> None:
        """End processes whose target has gone: nobody else keeps its namespace."""
        for inode in list(self._holds):
            async with self._lock(inode):
                # Whoever was inside may have put another process here, or have one for a pod that
                # took over the namespace of one that is gone: it is neither ended nor forgotten.
                hold = self._holds.get(inode)
                if hold is not None and not namespaces.alive(hold.target):
                    await hold.process.quit()
                    del self._holds[inode]
