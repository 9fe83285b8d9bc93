"""Containers of other runtimes on this host: found in /proc, named by a runtime's socket."""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from squall.linux.processes import PROC, Init, inits, send
from squall.node.sandboxes import HostContainer

_OURS = "squall"
_ANSWER_SECONDS = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")


def sockets() -> Sequence[Path]:
    """List sockets that speak Docker's API: Docker and Podman, of root and of users."""
    fixed = ("/run/docker.sock", "/run/podman/podman.sock")
    places = [Path(place) for place in fixed]
    for pattern in ("*/docker.sock", "*/podman/podman.sock"):
        places += Path("/run/user").glob(pattern)
    return [place for place in places if place.is_socket()]


@dataclass(frozen=True, slots=True)
class _Told:
    """What a runtime says of one container."""

    name: str
    image: str
    labels: Mapping[str, str] = field(default_factory=dict)


class LinuxHostContainers:
    """Looks through /proc; asks a runtime only when a container is new."""

    def __init__(
        self, proc: Path = PROC, find_sockets: Callable[[], Iterable[Path]] = sockets
    ) -> None:
        self._proc, self._find_sockets = proc, find_sockets
        self._known: dict[tuple[str, int], HostContainer] = {}

    async def list(self) -> Sequence[HostContainer]:
        """Look for what runs now; one pass over /proc."""
        return await asyncio.to_thread(self._look)

    async def signal(self, container: HostContainer, number: int) -> None:
        """Signal its init; nothing when it has ended."""
        send(container.pid, container.started, number)

    def _look(self) -> Sequence[HostContainer]:
        found = {
            (id_, init.started): init
            for id_, init in inits(self._proc).items()
            if init.runtime != _OURS
        }
        new = [key for key in found if key not in self._known]
        told = _ask(self._find_sockets()) if new else {}
        for key in new:
            self._known[key] = self._describe(key[0], found[key], told.get(key[0]))
        self._known = {key: self._known[key] for key in found}
        return list(self._known.values())

    def _describe(self, id_: str, init: Init, told: _Told | None) -> HostContainer:
        process = self._proc / str(init.pid)
        told = told or _Told(id_[:12], "")
        shared = _link(process / "ns/net") == _link(self._proc / "self/ns/net")
        return HostContainer(
            id=id_,
            runtime=init.runtime,
            pid=init.pid,
            started=init.started,
            at=_boot_time(self._proc) + init.started / _TICKS,
            name=told.name,
            image=told.image,
            labels=told.labels,
            addresses=() if shared else _addresses(process),
            host_network=shared,
        )


def _link(path: Path) -> str:
    with suppress(OSError):
        return str(path.readlink())
    return ""


def _boot_time(proc: Path) -> float:
    """Read when this host booted, in Unix seconds: proc_stat(5)."""
    lines = (proc / "stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))


def _addresses(process: Path) -> tuple[str, ...]:
    """Read the addresses of a network namespace without entering it, IPv4 first."""
    found: list[str] = []
    with suppress(OSError):
        found += _local_ipv4((process / "net/fib_trie").read_text())
    with suppress(OSError):
        for line in (process / "net/if_inet6").read_text().splitlines():
            digits = line.split()[0]
            found.append(":".join(digits[at : at + 4] for at in range(0, 32, 4)))
    usable = [ip_address(each) for each in dict.fromkeys(found)]
    return tuple(str(each) for each in usable if not (each.is_loopback or each.is_link_local))


def _local_ipv4(trie: str) -> list[str]:
    """Pick the host's own addresses out of /proc/net/fib_trie: leaves marked `host LOCAL`."""
    found, leaf = [], ""
    for line in trie.splitlines():
        words = line.split()
        if words[0] == "|--":
            leaf = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"]:
            found.append(leaf)
    return found


def _ask(places: Iterable[Path]) -> dict[str, _Told]:
    """Ask every runtime for its running containers; one that does not answer is left out."""
    told: dict[str, _Told] = {}
    for place in places:
        with suppress(OSError, HTTPException, ValueError):
            for each in _running(place):
                name = (each.get("Names") or [each["Id"][:12]])[0].lstrip("/")
                told[each["Id"]] = _Told(name, each.get("Image") or "", each.get("Labels") or {})
    return told


def _running(place: Path) -> list[dict[str, Any]]:
    connection = _UnixConnection(place)
    try:
        connection.request("GET", "/containers/json")
        response = connection.getresponse()
        found = json.loads(response.read())
    finally:
        connection.close()
    return found if isinstance(found, list) else []


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, place: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._place = place

    def connect(self) -> None:
        """Connect to the socket, not to a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._place))
