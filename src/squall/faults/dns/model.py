"""DNSChaos: what may be asked, and what each target gets of it."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from ipaddress import ip_address
from types import MappingProxyType
from typing import Annotated, Literal
from unicodedata import normalize

from pydantic import BeforeValidator, Field

from squall.api.experiment import ExperimentSpec
from squall.api.selector import ContainerSelector
from squall.api.units import Duration
from squall.api.wire import Fault, Flaw
from squall.injection.kind import Peers
from squall.injection.world.names import ADDRESS_TYPES, TYPES, Answer

LONGEST_NAME, LONGEST_LABEL = 253, 63
KEPT = frozenset("\u00df\u03c2")
"""Letters that a name keeps since RFC 5891: sharp s, and sigma at the end of a word."""
REGULAR = frozenset("^$|()[]{}+")
"""Letters of regular expressions that no name has; `?` stands for such a one, too."""
LONGEST_DELAY = timedelta(seconds=60)
_NUMBERED = re.compile(r"TYPE([0-9]{1,5})")
_LAST_TYPE = 65535

Failure = Literal["SERVFAIL", "NXDOMAIN", "NODATA", "REFUSED", "timeout", "truncated", "none"]
_Length = Annotated[Duration | None, BeforeValidator(lambda value: value or None)]
_ANSWERS: Mapping[Failure, Answer] = MappingProxyType(
    {
        "SERVFAIL": Answer("code", 2),
        "NXDOMAIN": Answer("code", 3),
        "NODATA": Answer("code", 0),
        "REFUSED": Answer("code", 5),
        "timeout": Answer("nothing"),
        "truncated": Answer("truncated"),
        "none": Answer("relayed"),
    }
)


class DNSChaosSpec(ExperimentSpec, ContainerSelector):
    """Let names that pods look up fail, come late, or lead elsewhere."""

    action: Literal["error", "random"]
    """`error`: look-ups fail. `random`: they lead to other addresses."""
    patterns: list[str] = Field(default_factory=list)
    """Names that are hit; `?` stands for one character, `*` for any number of them, dots included,
    as in `chaos-mes?.org` and `*.example.com`. Without any, every name is hit."""
    error: Failure | None = None
    """How look-ups fail, for action `error`: by a response code (`SERVFAIL`, which is the default,
    `NXDOMAIN`, `NODATA` for a name without such a record, `REFUSED`), by silence (`timeout`), by an
    answer that is cut short (`truncated`), or not at all (`none`: right, but with `delay`)."""
    addresses: list[str] = Field(default_factory=list)
    """Addresses that names lead to, for action `random`; without any, random ones that belong to
    nobody."""
    types: list[str] = Field(default_factory=list)
    """Types of the records that are hit, as `A`, `MX` and `TYPE99`; without any, every type, or
    with action `random` `A` and `AAAA`."""
    percent: Annotated[int, Field(ge=1, le=100)] | None = None
    """Of the look-ups that fit, how many are hit, drawn for each from `seed`; 100 by default."""
    delay: _Length = None
    """How long look-ups that are hit are held before they are answered, as `200ms`."""
    jitter: _Length = None
    """How far `delay` may be off, in both directions."""

    def flaws(self) -> Iterator[Flaw]:
        """Check what could never act."""
        yield from super().flaws()
        for at, pattern in enumerate(self.patterns):
            if why := _unlike_a_name(pattern):
                yield Flaw(f"patterns[{at}]", why)
        if self.action == "random" and self.error is not None:
            yield Flaw("error", "is for action error; action random answers with `addresses`")
        if self.action == "error" and self.addresses:
            yield Flaw("addresses", "are for action random; action error answers with none")
        for at, address in enumerate(self.addresses):
            if not _is_address(address):
                yield Flaw(f"addresses[{at}]", f"{address} is no IPv4 or IPv6 address")
        yield from self._type_flaws()
        yield from self._delay_flaws()

    def _type_flaws(self) -> Iterator[Flaw]:
        for at, name in enumerate(self.types):
            number = record_type(name)
            if number is None:
                known = ", ".join(TYPES)
                yield Flaw(f"types[{at}]", f"{name} is none of {known}; write others as TYPE99")
            elif self.action == "random" and number not in ADDRESS_TYPES:
                yield Flaw(f"types[{at}]", f"action random answers A and AAAA, not {name}")

    def _delay_flaws(self) -> Iterator[Flaw]:
        if not self.delay and not self.jitter and self.error == "none":
            yield Flaw("delay", "error none does nothing without it")
        if self.delay is None and self.jitter is not None:
            yield Flaw("jitter", "does nothing without delay")
        if self.delay is not None and self.error == "timeout":
            yield Flaw("delay", "is never felt with error timeout; leave one of them out")
        for name, length in (("delay", self.delay), ("jitter", self.jitter)):
            if length is not None and length < timedelta(0):
                yield Flaw(name, "cannot be negative")
            if length is not None and length > LONGEST_DELAY:
                yield Flaw(name, "no resolver waits for more than 60s; use error timeout")

    def answer(self) -> Answer:
        """What a look-up that is hit gets."""
        if self.action == "random":
            return Answer("addresses", addresses=tuple(str(ip_address(a)) for a in self.addresses))
        return _ANSWERS[self.error or "SERVFAIL"]


class DNSFault(Fault):
    """What one target is told about names."""

    patterns: tuple[str, ...] = ()
    """As sent over the wire: international names in ASCII."""
    types: tuple[int, ...] = ()
    """Numbers of record types."""
    percent: int = 100
    """Of the look-ups that fit, how many are hit."""
    seed: int | None = None
    """Start of all draws."""
    answer: Answer
    """What they get."""
    delay_us: int = 0
    """How long they are held."""
    jitter_us: int = 0
    """How far that may be off."""


def share(spec: DNSChaosSpec, selector_key: str, peers: Peers) -> DNSFault:  # noqa: ARG001
    """Give every target the same; there is one role, and nobody has to know the others."""
    types = (record_type(name) for name in spec.types)
    return DNSFault(
        patterns=tuple(in_ascii(pattern) for pattern in spec.patterns),
        types=tuple(number for number in types if number is not None),
        percent=100 if spec.percent is None else spec.percent,
        seed=spec.seed,
        answer=spec.answer(),
        delay_us=_microseconds(spec.delay),
        jitter_us=_microseconds(spec.jitter),
    )


def record_type(name: str) -> int | None:
    """Number of a record type, as `MX` or `TYPE15`; None for what is none."""
    if name.upper() in TYPES:
        return TYPES[name.upper()]
    numbered = _NUMBERED.fullmatch(name.upper())
    number = int(numbered[1]) if numbered else 0
    return number if 0 < number <= _LAST_TYPE else None


def in_ascii(pattern: str) -> str:
    """Write a name as resolvers ask for it: international labels by IDNA.

    Raises:
        UnicodeError: a label has no such form.
    """
    labels = pattern.removesuffix(".").lower().split(".")
    return ".".join(one if one.isascii() else _label_in_ascii(one) for one in labels)


def _label_in_ascii(label: str) -> str:
    # Python's codec writes these as older rules did (RFC 3490); resolvers ask by newer ones.
    if set(label) & KEPT:
        return "xn--" + normalize("NFC", label).encode("punycode").decode()
    return label.encode("idna").decode()


def _unlike_a_name(pattern: str) -> str:
    """Say why no name fits a pattern; empty where some may."""
    labels = pattern.removesuffix(".").split(".")
    wild = (not label.isascii() and set(label) & {"*", "?"} for label in labels)
    for found, why in (
        (not any(labels), "is empty; leave `patterns` out to mean every name"),
        (any(character.isspace() for character in pattern), "no name has a space in it"),
        (not all(labels), "no name has an empty label; `*` and `?` are wild by themselves"),
        (any(wild), "a label with a wildcard must be ASCII; write the others as xn--..."),
        ("\\" in pattern, "patterns know no escapes; `?` stands for a dot within a label, too"),
        (set(pattern) & REGULAR, "is no regular expression: `*` and `?` are all that it knows"),
        (":" in pattern, "a name has no scheme, no port and no address in it; leave that out"),
    ):
        if found:
            return why
    try:
        written = in_ascii(pattern)
    except UnicodeError:
        return f"{pattern} is no name that can be looked up"
    # A wildcard may stand for a dot, too.
    if any(len(part) > LONGEST_LABEL for part in re.split(r"[.*?]", written)):
        return f"between two dots a name has at most {LONGEST_LABEL} characters"
    longest = len(written.replace("*", ""))
    return f"names have at most {LONGEST_NAME} characters" if longest > LONGEST_NAME else ""


def _is_address(text: str) -> bool:
    try:
        return "%" not in str(ip_address(text))
    except ValueError:
        return False


def _microseconds(length: timedelta | None) -> int:
    return 0 if length is None else length // timedelta(microseconds=1)
