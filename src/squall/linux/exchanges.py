"""The HTTP port on Linux: a proxy in the network namespace of each target that has faults."""

import asyncio
import socket
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from squall.errors import TargetGone, TryAgain
from squall.injection.world.http import Answer, Counters, HttpState
from squall.injection.world.target import Target
from squall.linux import namespaces
from squall.linux.http import HttpProcess
from squall.linux.namespace_holders import NamespaceHolders

_LISTENS = "0A"
"""TCP_LISTEN in /proc/PID/net/tcp."""
_WORD_BYTES = 4
_FOUR = 4


class LinuxHttp:
    """Changes the HTTP exchanges of targets, seen from the node they run on.

    Args:
        run: folder for the sockets of the proxies; theirs alone.
        lease_seconds: how long those outlive the agent.
    """

    def __init__(self, run: Path, *, lease_seconds: float) -> None:
        self._holders = NamespaceHolders(HttpProcess, run, lease_seconds=lease_seconds)

    async def state(self, target: Target) -> HttpState:
        """Ask the proxy of the target's namespace; without one, nothing is in force."""
        async with self._holders.inside(target) as namespace:
            process = await self._holders.connected(namespace, target)
            return (await process.state()).held if process else HttpState()

    async def apply(self, target: Target, wanted: HttpState) -> None:
        """Make exactly `wanted` be in force; without any rule, end the proxy.

        It ends with what is under way, and no later than `LONGEST_STREAM_SECONDS` after.
        """
        async with self._holders.inside(target) as namespace:
            process = await self._holders.connected(namespace, target)
            if not wanted.rules:
                await self._holders.end(namespace, process)
                return
            lease_seconds = self._holders.lease_seconds
            if process:
                try:
                    await process.set(wanted, lease_seconds=lease_seconds)
                except TryAgain:
                    if not process.gone.is_set():  # it was about to leave
                        raise
                else:
                    return
            process = await self._holders.start(namespace, target)
            await process.set(wanted, lease_seconds=lease_seconds)

    async def counters(self, target: Target) -> Mapping[str, Counters]:
        """Read counters by source."""
        async with self._holders.inside(target) as namespace:
            process = await self._holders.connected(namespace, target)
            return (await process.state()).counters if process else {}

    async def keeps_addresses(self, target: Target) -> bool:
        """Do servers in a target that has faults still see their clients' own addresses?"""
        async with self._holders.inside(target) as namespace:
            process = await self._holders.connected(namespace, target)
            return process is None or (await process.state()).address_kept

    async def request(
        self,
        target: Target,
        port: int,
        *,
        method: str,
        path: str,
        headers: Mapping[str, str],
        within_seconds: float,
    ) -> Answer:
        """Send one request from inside the target to whoever listens on a port of it."""
        address = _listening(target, port)
        if address is None:
            raise TryAgain(f"{target.id}: nobody listens on port {port}")
        family = socket.AF_INET if address.version == _FOUR else socket.AF_INET6
        connection = await namespaces.inside(
            namespaces.of(target), lambda: socket.socket(family, socket.SOCK_STREAM)
        )
        connection.setblocking(False)
        fields = {"Host": f"localhost:{port}", "User-Agent": "squall-probe", **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
        request = "\r\n".join([*lines, "Connection: close", "", ""]).encode()
        loop = asyncio.get_running_loop()
        began = loop.time()
        status, failure = None, ""
        try:
            async with asyncio.timeout(within_seconds):
                status = await _status(connection, (str(address), port), request)
        except TimeoutError:
            failure = f"no answer within {within_seconds:g} s"
        except OSError as failed:
            failure = failed.strerror or str(failed)
        finally:
            connection.close()
        return Answer(loop.time() - began, status, failure)

    async def close(self) -> None:
        """Drop every connection; what is in force stays for one lease."""
        await self._holders.close()

    async def end_all(self) -> None:
        """End every proxy in the folder, those of agents before us too."""
        await self._holders.end_all()


async def _status(connection: socket.socket, address: tuple[str, int], request: bytes) -> int:
    """Send a request and read the code of its response."""
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, address)
    await loop.sock_sendall(connection, request)
    read = b""
    while b"\n" not in read:
        octets = await loop.sock_recv(connection, 4096)
        if not octets:
            raise ConnectionResetError("the connection was closed without an answer")
        read += octets
    version, code, *_ = read.split(None, 2)
    if not version.startswith(b"HTTP/") or not code.isdigit():
        raise ConnectionError("what answers speaks no HTTP")
    return int(code)


def _listening(target: Target, port: int) -> IPv4Address | IPv6Address | None:
    """Find an address at which somebody in a target listens on a port."""
    net = Path(f"/proc/{target.pid}/net")
    found: list[IPv4Address | IPv6Address] = []
    for name in ("tcp", "tcp6"):
        try:
            lines = (net / name).read_text().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError):
            if not namespaces.alive(target):
                raise TargetGone(f"{target.id}: process {target.pid} has ended") from None
            continue  # a kernel without IPv6
        for line in lines:
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            if state == _LISTENS and int(number, 16) == port:
                found.append(_address(address))
    # Who listens on every address of both families can be asked by IPv4 where there is no IPv6.
    six = "::1" if "::1" in namespaces.addresses(target) else "127.0.0.1"
    loopback = {4: ip_address("127.0.0.1"), 6: ip_address(six)}
    whole = [loopback[address.version] for address in found if address.is_unspecified]
    return next(iter((*whole, *found)), None)


def _address(digits: str) -> IPv4Address | IPv6Address:
    """Read an address as /proc writes it: words of four bytes, each in the order of this host."""
    octets = bytes.fromhex(digits)
    words = (octets[at : at + _WORD_BYTES] for at in range(0, len(octets), _WORD_BYTES))
    numbers = (int.from_bytes(word) for word in words)
    return ip_address(b"".join(n.to_bytes(_WORD_BYTES, sys.byteorder) for n in numbers))
