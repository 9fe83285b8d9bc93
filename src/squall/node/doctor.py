"""What this node can do: each capability tried for real, and what follows for the fault kinds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from squall.injection.kind import FaultKind


class Ability(StrEnum):
    """How well a capability is there."""

    OK = "ok"
    FALLBACK = "fallback"
    """The preferred means is missing; another gives the same effect."""
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Capability:
    """What came of trying one capability."""

    name: str
    """As kinds need it, such as `network:delay`."""
    ability: Ability
    path: str = ""
    """The means that gives it, such as `sch_netem` or `squall-node packets`."""
    why: str = ""
    """What is missing, and what to do about it; empty when all is well."""


class Capabilities(Protocol):
    """Tries what this host can do; leaves nothing behind."""

    async def examine(self, names: Iterable[str]) -> Mapping[str, Capability]:
        """Try each in a throw-away namespace or cgroup, rather than read a configuration.

        Args:
            names: every need of every kind; one it does not know is absent in the answer.
        """


@dataclass(frozen=True, slots=True)
class Finding:
    """What one kind may count on here."""

    kind: str
    capability: Capability


async def examine(capabilities: Capabilities, kinds: Mapping[str, FaultKind]) -> list[Finding]:
    """Try what every kind needs; one finding per kind and need, in their order."""
    needs = {need for kind in kinds.values() for need in kind.needs}
    return findings(await capabilities.examine(sorted(needs)), kinds)


def findings(found: Mapping[str, Capability], kinds: Mapping[str, FaultKind]) -> list[Finding]:
    """Lay what was found beside what kinds need; what nobody could try counts as missing."""
    untried = "nothing here knows how to try it; is this squall older than the fault kind?"
    return [
        Finding(name, found.get(need) or Capability(need, Ability.MISSING, why=untried))
        for name, kind in sorted(kinds.items())
        for need in kind.needs
    ]


def usable(kind: str, found: Iterable[Finding]) -> bool:
    """Can at least one action of a kind work here?"""
    mine = [finding for finding in found if finding.kind == kind]
    return not mine or any(f.capability.ability is not Ability.MISSING for f in mine)
