"""Linux capabilities that an agent must have, by what fault kinds need; capabilities(7).

Found by leaving each out and trying: `setpriv --bounding-set … squall doctor`, and on a cluster.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

ALWAYS: Mapping[str, str] = MappingProxyType(
    {
        "SYS_ADMIN": "enter network and cgroup namespaces of targets; mark what it froze",
        "SYS_PTRACE": "find the namespaces of processes of other users in /proc",
        "DAC_OVERRIDE": "make cgroups at the root of a hierarchy, which nobody may write to",
        "KILL": "end containers, and holders of faults, of other users",
    }
)
"""What every agent needs, whatever it does, and what for."""

BY_NEED: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "dns:answers": {
            "NET_ADMIN": "make nftables tables inside targets, and decide on what they send",
            "NET_RAW": "answer in the name of a target's servers",
        },
        "http:proxy": {
            "NET_ADMIN": "lead connections of targets through a proxy",
        },
        "network:partition": {
            "NET_ADMIN": "make nftables tables inside targets",
            "NET_RAW": "measure with pings from inside targets",
        },
        "network:shape": {
            "NET_ADMIN": "make queueing disciplines, TAP devices and tables inside targets",
            "NET_RAW": "send the packets of a lane on; measure with pings",
        },
        "files:filter": {
            "SYS_CHROOT": "enter mount namespaces of targets",
            "SETUID": "make files for whoever asked",
            "SETGID": "make files for whoever asked",
            "CHOWN": "pass on changes of owners",
            "FOWNER": "pass on changes of modes and times",
            "FSETID": "pass on set-group-id bits",
            "MKNOD": "pass on devices that a target makes; open /dev/fuse without being given it",
            "SETFCAP": "pass on capabilities that a target gives to files",
            "DAC_READ_SEARCH": "make hard links; find files again by their handles",
        },
        "pod:freeze": {},
        "stress:cpu": {
            "SETUID": "run stress-ng as nobody",
            "SETGID": "run stress-ng in no group",
        },
        "stress:memory": {
            "SETUID": "run stress-ng as nobody",
            "SETGID": "run stress-ng in no group",
        },
    }
)
"""What comes to it for each need of a fault kind, and what for."""


def privileges(needs: Iterable[str]) -> Mapping[str, str]:
    """Say what an agent must be granted to bring about what is needed.

    Args:
        needs: as `FaultKind.needs` names them; one that is not known here adds nothing.

    Returns:
        What each capability is for, by its name without `CAP_`.
    """
    found: dict[str, list[str]] = {name: [why] for name, why in ALWAYS.items()}
    for need in needs:
        for name, why in BY_NEED.get(need, {}).items():
            if why not in found.setdefault(name, []):
                found[name].append(why)
    return {name: "; ".join(whys) for name, whys in sorted(found.items())}
