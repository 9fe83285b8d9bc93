"""What an injector may do to the names that a target looks up, and measure of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol

from squall.injection.world.target import Target

TYPES: Mapping[str, int] = MappingProxyType(
    {
        "A": 1,
        "NS": 2,
        "CNAME": 5,
        "SOA": 6,
        "PTR": 12,
        "MX": 15,
        "TXT": 16,
        "AAAA": 28,
        "SRV": 33,
        "NAPTR": 35,
        "DS": 43,
        "DNSKEY": 48,
        "TLSA": 52,
        "SVCB": 64,
        "HTTPS": 65,
        "ANY": 255,
        "CAA": 257,
    }
)
"""Record types by name (IANA, Domain Name System Parameters); others are written as `TYPE99`."""

ADDRESS_TYPES = frozenset({TYPES["A"], TYPES["AAAA"]})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query that is hit gets."""

    kind: Literal["relayed", "nothing", "code", "truncated", "addresses"]
    """What its server says; no answer at all; a response code without a record; the request to ask
    again by TCP (over TCP, what its server says); addresses (to other types, what the server says).
    """
    code: int = 0
    """Of kind `code`: 2 is SERVFAIL, 3 is NXDOMAIN, 0 is a name without such a record."""
    addresses: tuple[str, ...] = ()
    """Of kind `addresses`; empty: another random one each time, of those that belong to nobody."""


@dataclass(frozen=True, slots=True)
class NameRule:
    """What happens to queries for some names.

    A query is offered to each rule in order: one that hits may hold it, and the first that hits and
    answers ends it. It is the same over UDP and TCP, to whatever server, loopback included.
    """

    source: str
    """Which live fault asked for it; names its counters."""
    patterns: tuple[str, ...]
    """`?` stands for one character, `*` for any number, dots included; empty: every name."""
    types: tuple[int, ...]
    """Of records; empty: every type."""
    answer: Answer
    percent: float = 100.0
    """Of the queries that fit, how many are hit."""
    delay_us: int = 0
    """How long a query that is hit is held before it is answered, or goes on."""
    jitter_us: int = 0
    """How far that may be off, in both directions."""
    seed: int | None = None
    """Start of all draws: with the same one, the same queries are hit, counted from the first."""


@dataclass(frozen=True, slots=True)
class NameCounters:
    """What was done for one source since it was put there."""

    matched: int = 0
    """Queries that fit its names and types, and that no older fault had answered."""
    hit: int = 0
    """Of these, those that chance chose."""
    answered: int = 0
    """Of these, those that were answered in their server's place."""
    swallowed: int = 0
    """Of these, those that nobody will ever answer."""
    delayed: int = 0
    delay_us_sum: int = 0
    """Time that queries were held for it, summed."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one query of ours."""

    code: int | None = None
    """Response code; None: no answer in time."""
    truncated: bool = False
    addresses: tuple[str, ...] = ()
    after_ms: float = 0.0
    """From the query to the answer, or to the end of patience."""


class Names(Protocol):
    """Name look-ups of a target, caught in its own network namespace.

    Containers of one pod share that: what one of them is given, all feel.
    """

    async def state(self, target: Target) -> Sequence[NameRule]:
        """Read what is in force for this target, from whoever makes it so."""

    async def apply(self, target: Target, wanted: Sequence[NameRule]) -> None:
        """Make exactly `wanted` be in force; an empty sequence leaves nothing of ours behind."""

    async def counters(self, target: Target) -> Mapping[str, NameCounters]:
        """Read counters by source; a source that is not in force is absent."""

    async def ask(
        self, target: Target, name: str, record_type: int, *, within_seconds: float
    ) -> Reply | None:
        """Ask the target's own name server from inside; None where no query could be sent."""
