"""Names, looked up as a target would: its hosts file, its name servers, its network."""

import io
import os
from collections.abc import Sequence

from squall.errors import TargetGone, TryAgain
from squall.injection.world.target import Target
from squall.linux import beneath
from squall.linux.namespaces import Namespace, inside
from squall.linux.processes import PROC

LOOKUP_SECONDS = 2.0
"""For one kind of address, all name servers together."""

_LONGEST_FILE = 1 << 20


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
    """Read a file as the target would without file faults; empty where it cannot be read.

    Raises:
        TargetGone: its process has ended.
    """
    try:
        with beneath.root(target.pid) as root:
            found = beneath.open_in(root, path, os.O_RDONLY)
            with os.fdopen(found, "rb", buffering=0) as file:
                return (file.read(_LONGEST_FILE) or b"").decode(errors="replace")
    except OSError:
        if not (PROC / str(target.pid)).exists():
            raise TargetGone(f"{target.id}: process {target.pid} has ended") from None
        return ""


def _ask(servers: str, name: str) -> list[str]:
    """Ask the name servers of a resolv.conf(5). Runs in a thread inside the namespace."""
    # Imported here: few faults name hosts, and it costs 5 MiB.
    import dns.exception  # noqa: PLC0415
    import dns.resolver  # noqa: PLC0415

    resolver = dns.resolver.Resolver(configure=False)
    try:
        resolver.read_resolv_conf(io.StringIO(servers))
    except (dns.exception.DNSException, ValueError) as useless:
        raise TryAgain(f"looking up {name}: the target's resolv.conf: {useless}") from useless
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
