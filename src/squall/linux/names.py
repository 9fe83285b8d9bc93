"""Name resolution between targets: the hosts(5) file that each of them sees."""

from collections.abc import Mapping
from pathlib import Path

from squall.node.sandboxes import PodName

_LOCAL = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

NO_RESOLVER = "# No way out of this network: names come from /etc/hosts alone.\n"
"""resolv.conf(5) of a target: the resolver is 127.0.0.1, where nobody answers, so that an unknown
name fails at once instead of after timeouts."""


def hosts_of(pod: PodName, pods: Mapping[PodName, tuple[str, ...]]) -> str:
    """Write the hosts file of one pod.

    Every pod is there as `name.namespace`, those of its own namespace as `name` too.

    Args:
        pod: whose file it is; it is named first, so that its own address leads back to its name.
        pods: addresses of every pod on the bridge.
    """
    lines = []
    for other in sorted(pods, key=lambda each: (each != pod, each)):
        names = f"{other.name}.{other.namespace}"
        if other.namespace == pod.namespace:
            names = f"{other.name} {names}"
        lines += [f"{address}\t{names}\n" for address in pods[other]]
    return _LOCAL + "".join(lines)


def write_in_place(path: Path, text: str) -> None:
    """Change the content of a file that is bind-mounted elsewhere: its inode must stay.

    Content first, then the new end, so that whoever reads in between misses nothing that was there.
    """
    octets = text.encode()
    try:
        with path.open("r+b") as file:
            if file.read() == octets:
                return
            file.seek(0)
            file.write(octets)
            file.truncate()
    except FileNotFoundError:
        path.write_bytes(octets)
