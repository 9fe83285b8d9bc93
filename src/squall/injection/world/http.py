"""What an injector may do to the HTTP exchanges of a target, and measure in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol

from squall.injection.world.target import Target

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Replace:
    """Put in place of what is there.

    `path`, `method` and `queries` only in requests, `code` only in responses.
    """

    path: str | None = None
    method: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    queries: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    """Base64."""
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    """Put beside what is there."""

    headers: tuple[tuple[str, str], ...] = ()
    queries: tuple[tuple[str, str], ...] = ()
    body: Json = None
    """A JSON merge patch (RFC 7396): the value itself. None: the body is left alone."""


@dataclass(frozen=True, slots=True)
class Grpc:
    """Ends of gRPC calls; exchanges that are none are left alone.

    Of requests, the call is answered at once and the server never sees it. Of responses, the first
    `after_messages` messages pass, then the call ends so.
    """

    status: int | None = None
    """None: the server's own end of the call, but for `trailers`."""
    message: str = ""
    trailers: Mapping[str, str] = field(default_factory=dict)
    """Set over those of the server."""
    after_messages: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to some exchanges of one port; one that several match passes each, in order."""

    source: str
    """Which live fault asked for it; names its counters."""
    target: Literal["Request", "Response"]
    port: int
    """Destination port, as the client dials it."""
    outgoing: bool = False
    """False: connections to a server in the target. True: those that the target opens."""
    path: str | None = None
    """Wildcards `*` and `?`, matched with the path before any `?`."""
    method: str | None = None
    code: int | None = None
    """Of the response; for requests it is not looked at."""
    request_headers: Mapping[str, str] = field(default_factory=dict)
    """All must be there, with exactly this value; names in any case."""
    response_headers: Mapping[str, str] = field(default_factory=dict)
    percent: float = 100.0
    """Share of the exchanges that match all else."""
    seed: int = 0
    """The same seed hits the same exchanges, counted from the first."""
    abort: bool = False
    """Reset the connection without an answer; in HTTP/2, the stream."""
    delay_us: int = 0
    replace: Replace | None = None
    patch: Patch | None = None
    grpc: Grpc | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """The server's own certificate, for incoming TLS connections to one port."""

    port: int
    certificate: str
    """PEM, the leaf first."""
    key: str = field(default="", compare=False, repr=False)
    """PEM; never told again, so what is read back comes without."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority that the target was made to trust, for outgoing connections."""

    source: str
    """Whose outgoing rules it serves; of several for one port the first is taken."""
    certificate: str
    """PEM."""
    roots: str = ""
    """PEM of whom the target trusted before."""
    key: str = field(default="", compare=False, repr=False)
    """PEM; as that of a `Certificate`."""


@dataclass(frozen=True, slots=True)
class HttpState:
    """Everything of ours that is in force in one network namespace.

    Certificates are sorted when it is made, so that equal states compare equal.
    """

    rules: tuple[Rule, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    """At most one for each port."""
    authorities: tuple[Authority, ...] = ()

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.certificates, key=lambda one: one.port))
        object.__setattr__(self, "certificates", ordered)


@dataclass(frozen=True, slots=True)
class Counters:
    """What was done for one source since it was put there; an exchange is a request and its end."""

    exchanges: int = 0
    """On a port of its rules, in their direction."""
    matched: int = 0
    """Of these, those that a rule of it took."""
    aborted: int = 0
    delayed: int = 0
    delay_us_sum: int = 0
    """Time that delayed exchanges were held, summed."""
    replaced: int = 0
    patched: int = 0
    unpatchable: int = 0
    """Bodies to be patched that were no JSON, encoded, or longer than is held."""
    crowded: int = 0
    """Bodies to be patched that passed as they were, as others took all the room for them."""
    ended: int = 0
    """gRPC calls that were given another end."""
    foreign: int = 0
    """Connections that spoke something else, and were passed through byte by byte."""
    sealed: int = 0
    """TLS connections that could not be opened: the client does not trust us (it pins
    certificates), the server wants a certificate of the client, or no key was given."""
    reset: int = 0
    """Connections older than the rules, reset so that their clients come again."""

    def since(self, before: "Counters") -> "Counters":
        """Count what came after `before`; a count that fell was started anew in between."""
        return Counters(
            **{
                one.name: max(0, getattr(self, one.name) - getattr(before, one.name))
                for one in fields(self)
            }
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request of our own."""

    seconds: float
    """Until its response began, or until it failed."""
    status: int | None = None
    """Code of the response; None: the connection ended without one."""
    failure: str = ""
    """Why there was no response: refused, reset, nobody answered in time."""


class Http(Protocol):
    """The HTTP exchanges of a target; whatever no rule matches passes untouched."""

    async def state(self, target: Target) -> HttpState:
        """Read what of ours is in force, from the process that does it; keys are left out."""

    async def apply(self, target: Target, wanted: HttpState) -> None:
        """Make exactly `wanted` be in force; an empty state leaves nothing of ours behind.

        Connections that are open when their port is first meant are affected within a second.
        """

    async def counters(self, target: Target) -> Mapping[str, Counters]:
        """Read counters by source; a source that is not in force is absent."""

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
        """Send one plain HTTP/1.1 request to the target's own port, from inside the target.

        Raises:
            TryAgain: nobody listens on that port.
        """
