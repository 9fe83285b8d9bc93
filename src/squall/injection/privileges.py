"""Which Linux capabilities an agent uses for what; capabilities(7).

A fault kind names its needs; `squall explain-privileges` tells them, and a test holds them against
what the chart grants.
"""

from collections.abc import Mapping
from types import MappingProxyType

ALWAYS: Mapping[str, str] = MappingProxyType(
    {
        "SYS_PTRACE": "see to which pod a process of another user belongs, in /proc",
        "SYS_ADMIN": "enter the namespaces of a target",
        "SYS_CHROOT": "enter the mount namespace of a target",
    }
)
"""Capability -> why, for whatever an agent does on its node."""

_HELD = {
    "NET_ADMIN": "packet rules, queueing disciplines and devices in the target's network",
    "NET_RAW": "pings that measure whether the fault is felt",
}
_SHAPED = {
    "NET_RAW": "pings that measure, and sending packets that were held",
    "BPF": "the program that hands packets over, where the kernel lacks sch_netem",
    "PERFMON": "the same program: reading packets",
}
_STRESSED = {
    "KILL": "end stress-ng inside the target",
    "SYS_RESOURCE": "let stress-ng be killed for want of memory before the target is",
    "DAC_OVERRIDE": "put stress-ng into the target's cgroup, whoever owns it",
}

NEEDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "network:partition": _HELD,
        "network:shape": _HELD | _SHAPED,
        "pod:freeze": {"KILL": "stop processes where the kernel has no freezer"},
        "pod:kill": {"KILL": "kill the processes of a container"},
        "stress:cpu": _STRESSED,
        "stress:memory": _STRESSED,
    }
)
"""Need -> capability -> why, beside `ALWAYS`."""


def capabilities(needs: tuple[str, ...]) -> dict[str, str]:
    """Give every capability that these needs take, and why.

    Args:
        needs: keys of `NEEDS`.
    """
    found = dict(ALWAYS)
    for need in needs:
        found |= NEEDS[need]
    return found
