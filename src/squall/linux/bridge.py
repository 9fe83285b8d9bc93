"""The network that local workloads share: one bridge of ours, a namespace and a veth pair each."""

import asyncio
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from squall.errors import TryAgain, Unsupported
from squall.node.sandboxes import PodName

_POOL = IPv4Network("10.192.0.0/10")
_PREFIX = 22  # 1,021 pods
_FIRST = 2  # the bridge itself is 1
_SETTLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Subnets:
    """What the pods of one installation have to themselves."""

    four: str
    """As `10.200.4.0/22`."""
    six: str
    """A unique local /64; empty where the host has no IPv6."""

    def addresses(self, number: int) -> tuple[str, ...]:
        """Write the addresses of the host with this number, IPv4 first."""
        return tuple(str(ip_network(net)[number]) for net in (self.four, self.six) if net)

    def with_prefix(self, number: int) -> list[tuple[str, int]]:
        """Write them as (address, prefix length)."""
        nets = [ip_network(net) for net in (self.four, self.six) if net]
        return [(str(net[number]), net.prefixlen) for net in nets]


def choose_subnets(mark: str, taken: Collection[str], *, six: bool = True) -> Subnets:
    """Choose networks that overlap with none of those that are taken.

    The mark says where to begin, so that two installations rarely try the same.

    Args:
        mark: of the installation.
        taken: networks in use on this host, as `10.0.0.0/8`; default routes left out.
        six: does the host have IPv6?

    Raises:
        Unsupported: every network of the pool overlaps with a taken one.
    """
    digest = sha256(mark.encode()).digest()
    used = [ip_network(each, strict=False) for each in taken]
    fours = [net for net in used if isinstance(net, IPv4Network)]
    count = 2 ** (_PREFIX - _POOL.prefixlen)
    begin = int.from_bytes(digest[:4])
    step = 2 ** (32 - _PREFIX)
    for turn in range(count):
        first = int(_POOL.network_address) + (begin + turn) % count * step
        four = IPv4Network((first, _PREFIX))
        if not any(four.overlaps(other) for other in fours):
            # 40 bits that are as good as random, RFC 4193: nobody else has them.
            local = IPv6Network((0xFD << 120 | int.from_bytes(digest[4:9]) << 80, 64))
            return Subnets(str(four), str(local) if six else "")
    raise Unsupported(f"no free network of length /{_PREFIX} in {_POOL}: free one of its routes")


class Bridge:
    """Networks of pods; what is there is read from the run directory and the kernel."""

    def __init__(self, mark: str, run_dir: Path, node_program: str) -> None:
        """Prepare one; nothing is made before `up`.

        Args:
            mark: name of the bridge, `squall-` and 8 digits: IFNAMSIZ allows no more.
            run_dir: ours alone, emptied by a reboot as the kernel's objects are.
            node_program: path of `squall-node`.
        """
        self._mark, self._run_dir, self._program = mark, run_dir, node_program
        self._index = 0
        self._subnets = Subnets("", "")
        self._making = asyncio.Lock()
        self._pods: dict[PodName, int] = {}
        self._last = _FIRST - 1

    @property
    def network_dir(self) -> Path:
        """Where the namespaces of pods are bound to."""
        return self._run_dir / "netns"

    def network(self, pod: PodName) -> Path:
        """Name the file that the namespace of a pod is bound to."""
        return self.network_dir / _file_name(pod)

    def pods(self) -> Mapping[PodName, tuple[str, ...]]:
        """List attached pods and their addresses."""
        return {pod: self._subnets.addresses(number) for pod, number in self._pods.items()}

    async def up(self) -> None:
        """Find what an earlier process left; the bridge itself is made for the first pod."""
        self.network_dir.mkdir(parents=True, exist_ok=True)
        self._records.mkdir(exist_ok=True)
        self._index = _index_of(self._mark)
        if self._index and self._chosen.exists():
            self._subnets = Subnets(**json.loads(self._chosen.read_text()))
        for path in self._records.iterdir():
            record = json.loads(path.read_text())
            pod = PodName(record["namespace"], record["name"])
            if self._index and _is_bound(self.network(pod)):
                self._pods[pod] = record["number"]
                self._last = max(self._last, record["number"])
            else:
                await self._forget(pod)
        for path in self.network_dir.iterdir():
            namespace, _, name = path.name.partition("_")
            if PodName(namespace, name) not in self._pods:  # its record is gone
                await self._forget(PodName(namespace, name))

    async def attach(self, pod: PodName) -> tuple[str, ...]:
        """Give a pod its namespace and addresses; again changes nothing."""
        async with self._making:
            if not self._subnets.four:
                await self._make_bridge()
        if pod not in self._pods:
            number = self._free_number()
            self._pods[pod] = number
            record = asdict(pod) | {"number": number}
            (self._records / _file_name(pod)).write_text(json.dumps(record))
            try:
                await self._make(pod, number)
            except BaseException:
                await asyncio.shield(self._forget(pod))
                raise
        return self._subnets.addresses(self._pods[pod])

    async def detach(self, pod: PodName) -> None:
        """Take namespace and veth pair away; absent is fine."""
        if pod in self._pods:
            await self._forget(pod)

    async def down(self) -> None:
        """Take everything away, the bridge last."""
        for pod in list(self._pods):
            await self._forget(pod)
        await asyncio.to_thread(_delete_link, self._mark)
        self._chosen.unlink(missing_ok=True)
        self._index, self._subnets = 0, Subnets("", "")
        for directory in (self.network_dir, self._records):
            with suppress(FileNotFoundError):
                directory.rmdir()

    @property
    def _records(self) -> Path:
        return self._run_dir / "pods"

    @property
    def _chosen(self) -> Path:
        return self._run_dir / "subnets.json"

    async def _make_bridge(self) -> None:
        self._index, subnets = await asyncio.to_thread(_make_bridge, self._mark)
        self._chosen.write_text(json.dumps(asdict(subnets)))
        self._subnets = subnets

    def _free_number(self) -> int:
        # Round and round: an address that was just given up is still in somebody's caches.
        numbers = (1 << (32 - _PREFIX)) - 1
        used = set(self._pods.values())
        for turn in range(numbers):
            number = (self._last + 1 + turn - _FIRST) % (numbers - _FIRST) + _FIRST
            if number not in used:
                self._last = number
                return number
        raise TryAgain(f"all {numbers} addresses of {self._subnets.four} are in use")

    async def _make(self, pod: PodName, number: int) -> None:
        interface = {
            "outside": self._veth(pod),
            "alias": f"{self._mark} {pod}",
            "bridge": self._index,
            "inside": "eth0",
            "addresses": self._subnets.with_prefix(number),
            "gateways": self._subnets.addresses(1),
        }
        path = self.network(pod)
        program = await asyncio.create_subprocess_exec(
            self._program,
            "netns",
            str(path),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(_SETTLE_SECONDS):
            _, said = await program.communicate(json.dumps(interface).encode())
        if program.returncode:
            raise TryAgain(f"{pod}: no network: {said.decode().strip()}")

    async def _forget(self, pod: PodName) -> None:
        await asyncio.to_thread(_remove, self._veth(pod), self.network(pod))
        (self._records / _file_name(pod)).unlink(missing_ok=True)
        self._pods.pop(pod, None)

    def _veth(self, pod: PodName) -> str:
        digits = sha256(f"{self._mark} {pod}".encode()).hexdigest()
        return f"squ-{digits[:11]}"  # 15 octets: IFNAMSIZ


def _is_bound(network: Path) -> bool:
    return os.path.ismount(network)


def _file_name(pod: PodName) -> str:
    return f"{pod.namespace}_{pod.name}"  # neither may have an underscore: RFC 1123


def _index_of(link: str) -> int:
    path = Path("/sys/class/net", link, "ifindex")
    return int(path.read_text()) if path.exists() else 0


def _make_bridge(mark: str) -> tuple[int, Subnets]:
    _delete_link(mark)  # one that somebody killed half-made: nobody knows its subnets
    from pyroute2 import IPRoute  # noqa: PLC0415  (0.3 s: paid where there is a workload)

    with IPRoute() as netlink:
        subnets = choose_subnets(mark, _taken(netlink), six=_has_ipv6())
        netlink.link("add", ifname=mark, kind="bridge", br_forward_delay=0, br_mcast_snooping=0)
        index = _index_of(mark)
        for address, prefix in subnets.with_prefix(1):
            # No search for doubles: usable at once.
            netlink.addr("add", index=index, address=address, prefixlen=prefix, flags=_NODAD)
        netlink.link("set", index=index, state="up")
        return index, subnets


def _has_ipv6() -> bool:
    switch = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    return switch.exists() and switch.read_text().strip() == "0"


_NODAD = 0x02  # linux/if_addr.h


def _taken(netlink: Any) -> set[str]:  # noqa: ANN401  (untyped upstream)
    """List networks that are routed on this host, in any table."""
    return {
        f"{destination}/{message['dst_len']}"
        for message in netlink.get_routes()
        if message["dst_len"] and (destination := message.get("dst"))
    }


def _delete_link(name: str) -> None:
    index = _index_of(name)
    if index:
        from pyroute2 import IPRoute  # noqa: PLC0415

        with IPRoute() as netlink:
            netlink.link("del", index=index)


def _remove(veth: str, network: Path) -> None:
    _delete_link(veth)
    if network.exists():
        from pyroute2 import netns  # noqa: PLC0415

        netns.remove(str(network))  # unmounts where something is mounted
