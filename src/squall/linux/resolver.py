"""Names, looked up as a target would: its hosts file, its name servers, its network."""

import ctypes
import io
import os
import struct
from collections.abc import Sequence

from squall.errors import TargetGone, TryAgain
from squall.injection.world.target import Target
from squall.linux.namespaces import Namespace, inside

LOOKUP_SECONDS = 2.0
"""For one kind of address, all name servers together."""

_OPENAT2 = 437
"""System call number, the same on every architecture."""
_RESOLVE_IN_ROOT = 0x10
_LONGEST_FILE = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


async def resolve(target: Target, namespace: Namespace, name: str) -> Sequence[str]:
    """Find every IPv4 and IPv6 address of `name`; none where it does not exist.

    Raises:
        TargetGone: its process has ended.
        TryAgain: no name server answered.
    """
    hosts = read_inside(target, "/etc/hosts")
    if listed := in_hosts_file(hosts, name):
        return listed
    servers = read_inside(target, "/etc/resolv.conf")
    return await inside(namespace, lambda: _ask(servers, name))


def in_hosts_file(content: str, name: str) -> list[str]:
    """Find the addresses that hosts(5) gives to a name."""
    wanted = name.rstrip(".").lower()
    lines = (line.partition("#")[0].lower().split() for line in content.splitlines())
    return [line[0] for line in lines if wanted in line[1:]]


def read_inside(target: Target, path: str) -> str:
    """Read a file as the target sees it, its links never leading out; empty where it is missing.

    Raises:
        TargetGone: its process has ended.
    """
    try:
        root = os.open(f"/proc/{target.pid}/root", os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise TargetGone(f"{target.id}: process {target.pid} has ended") from None
    try:
        # O_NONBLOCK: a pipe in that place must not hold us up.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        how = struct.pack("=QQQ", flags, 0, _RESOLVE_IN_ROOT)
        found = _libc.syscall(_OPENAT2, root, path.encode(), how, len(how))
    finally:
        os.close(root)
    if found < 0:
        return ""
    with os.fdopen(found, "rb", buffering=0) as file:
        return (file.read(_LONGEST_FILE) or b"").decode(errors="replace")


def _ask(servers: str, name: str) -> list[str]:
    """Ask the name servers of a resolv.conf(5). Runs in a thread inside the namespace."""
    # Imported here: few faults name hosts, and it costs 5 MiB.
    import dns.exception  # noqa: PLC0415
    import dns.resolver  # noqa: PLC0415

    resolver = dns.resolver.Resolver(configure=False)
    try:
        resolver.read_resolv_conf(io.StringIO(servers))
    except dns.resolver.NoResolverConfiguration:
        message = "it is not in /etc/hosts, and /etc/resolv.conf names no server to ask"
        raise TryAgain(f"looking up {name}: {message}") from None
    found: list[str] = []
    for kind in ("A", "AAAA"):
        try:
            answer = resolver.resolve(name, kind, search=True, lifetime=LOOKUP_SECONDS)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            continue
        except dns.exception.DNSException as failure:
            raise TryAgain(f"looking up {name}: {failure}") from failure
        found += [record.address for record in answer]
    return found
