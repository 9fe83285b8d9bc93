"""The network port on Linux: cuts in an nftables table, shapes in qdiscs or in a packet scheduler.

Everything that a namespace is given hangs on one `squall-node packets` process for it: when that
ends, by whatever cause, the traffic is free again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from squall.injection.world.network import Counters, NetworkState, Ping
from squall.injection.world.target import Target
from squall.linux import namespaces, nftables, pings, resolver
from squall.linux.namespace_holders import NamespaceHolders
from squall.linux.packets import Held, PacketsProcess
from squall.linux.shaping import Shaping


class LinuxNetwork:
    """Changes the network of targets, seen from the node they run on.

    Args:
        run: folder for the sockets of the processes that hold the faults; theirs alone.
        lease_seconds: how long those outlive the agent.
        shaping: the path of shapes.
    """

    def __init__(self, run: Path, *, lease_seconds: float, shaping: Shaping) -> None:
        self._shaping = shaping
        self._holders = NamespaceHolders(PacketsProcess, run, lease_seconds=lease_seconds)

    @property
    def path(self) -> str:
        """How shapes are made here: `netem` or `packets`."""
        return self._shaping.name

    async def state(self, target: Target) -> NetworkState:
        """Read what is in force: the table from the kernel, lanes from the process they live in."""
        async with self._holders.inside(target) as namespace:
            process = await self._holders.connected(namespace, target)
            listed = await process.list() if process else ""
            held = (await process.state()).held if process else Held()
            shapes = await self._shaping.shapes(target, namespace, held, listed)
            return NetworkState(nftables.cuts(listed), tuple(shapes))

    async def apply(self, target: Target, wanted: NetworkState) -> None:
        """Make exactly `wanted` be in force; without any, end the process that held it."""
        async with self._holders.inside(target) as namespace:
            process = await self._holders.connected(namespace, target)
            if wanted.cuts or wanted.shapes:
                shaped = await self._shaping.prepare(target, namespace, wanted.shapes)
                process = process or await self._holders.start(namespace, target)
                script = nftables.script(wanted.cuts, shaped.classified, note=shaped.note)
                await process.set(Held(script, shaped.lanes, self._holders.lease_seconds))
            else:
                await self._holders.end(namespace, process)
            await self._shaping.tidy(target, namespace, wanted.shapes)

    async def counters(self, target: Target) -> Mapping[str, Counters]:
        """Read counters by source, of cuts and shapes together."""
        async with self._holders.inside(target) as namespace:
            process = await self._holders.connected(namespace, target)
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
        await self._holders.close()

    async def end_all(self) -> None:
        """End every process in the folder, those of agents before us too: all traffic is free."""
        await self._holders.end_all()
