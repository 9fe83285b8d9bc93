"""What may be done to requests and responses, as users write it."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field

from squall.api.units import Int32
from squall.api.wire import Flaw, Wire

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What names of headers and methods are made of; RFC 9110."""
_OF_THE_WIRE = {
    *("connection", "content-length", "expect", "http2-settings", "keep-alive"),
    *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
}
"""Headers about the end of a message, or about one connection; HTTP/2 forbids most of them."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LEAST_CODE, _MOST_CODE = 100, 599
_FIRST_FINAL_CODE = 200
_MOST_GRPC_STATUS = 16
_DEEPEST_PATCH = 100
"""The proxy reads JSON down to 128 levels, some of which are around the patch."""

Base64 = Annotated[str, Field(json_schema_extra={"format": "byte"})]
Side = Literal["Request", "Response"]
Pairs = list[list[str]]


def header_flaws(field: str, headers: Iterable[tuple[str, str]]) -> Iterator[Flaw]:
    """Check names and values of headers, which would else break the message they are put into."""
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            yield Flaw(field, f"{name!r} is not a name of a header")
        if _CONTROL.search(value):
            yield Flaw(field, f"the value of {name!r} has control characters")


def set_header_flaws(field: str, headers: Iterable[tuple[str, str]]) -> Iterator[Flaw]:
    """Check headers that are put into a message, which must not tear it or join it to the next."""
    headers = tuple(headers)
    yield from header_flaws(field, headers)
    for name, _ in headers:
        if name.lower() in _OF_THE_WIRE:
            why = "says how a message travels, which follows from the message; leave it out"
            yield Flaw(field, f"{name} {why}")


def code_flaws(field: str, code: int | None) -> Iterator[Flaw]:
    """Check that there is such a code of a response."""
    if code is not None and not _LEAST_CODE <= code <= _MOST_CODE:
        yield Flaw(field, f"there is no response with code {code}; it must be from 100 to 599")


def path_flaws(field: str, pattern: str) -> Iterator[Flaw]:
    """Check that a pattern may fit the path of a request."""
    if pattern and pattern[0] not in "/*?":
        why = "fits no path: they begin with /; `*` and `?` are all that a pattern knows"
        yield Flaw(field, why)
    elif _CONTROL.search(pattern) or " " in pattern:
        yield Flaw(field, "fits no path: they have no blanks and no control characters; write %20")


class Replace(Wire):
    """Put in place of what is there."""

    path: str | None = None
    """Path of requests; what comes after a `?` stays as it was, unless this has a `?` too."""
    method: str | None = None
    """Method of requests."""
    headers: dict[str, str] | None = None
    """Headers, by name; those of the same name go."""
    queries: dict[str, str] | None = None
    """Parameters in the URI of requests, by name: with `foo: unknown`, `/?foo=bar` becomes
    `/?foo=unknown`."""
    body: Base64 | None = None
    """The whole body, in base64."""
    code: Int32 | None = None
    """Code of responses."""

    def flaws(self) -> Iterator[Flaw]:
        """Check what no message may carry."""
        yield from set_header_flaws("headers", (self.headers or {}).items())
        if self.code is not None and not _FIRST_FINAL_CODE <= self.code <= _MOST_CODE:
            yield Flaw("code", f"no response ends with code {self.code}; use 200 to 599")
        if self.path is not None and not self.path.startswith("/"):
            yield Flaw("path", "a path begins with /")
        if self.path is not None and (_CONTROL.search(self.path) or " " in self.path):
            yield Flaw("path", "a path has no blanks and no control characters; write %20")

    @property
    def empty(self) -> bool:
        """Is nothing replaced?"""
        return not any((self.headers, self.queries, self.code, self.method, self.path)) and (
            self.body is None
        )


class PatchBody(Wire):
    """A change of a JSON body."""

    type: str
    """`JSON`: a merge patch (RFC 7396)."""
    value: str
    """The patch, as JSON text."""

    def flaws(self) -> Iterator[Flaw]:
        """Check that it can be read."""
        if self.type != "JSON":
            yield Flaw("type", f"type {self.type} is not supported; use JSON")
            return
        try:
            patch = json.loads(self.value, parse_constant=_no_constant)
            # What is no JSON after all: numbers beyond a float's, halves of characters.
            json.dumps(patch, ensure_ascii=False, allow_nan=False).encode()
        except RecursionError:
            yield Flaw("value", f"is deeper than {_DEEPEST_PATCH} levels")
        except ValueError as unreadable:
            yield Flaw("value", f"is not JSON: {unreadable}")
        else:
            if _depth(patch) > _DEEPEST_PATCH:
                yield Flaw("value", f"is deeper than {_DEEPEST_PATCH} levels")


def _no_constant(name: str) -> None:
    raise ValueError(f"it has no {name}")


def _depth(value: object) -> int:
    """Levels of lists and objects within each other."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [
            inner for one in level for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return depth


class Patch(Wire):
    """Put beside what is there."""

    headers: Pairs | None = None
    """Further headers, as `[["Set-Cookie", "a=b"], ["Set-Cookie", "c=d"]]`."""
    queries: Pairs | None = None
    """Further parameters in the URI of requests, as `[["foo", "bar"]]`."""
    body: PatchBody | None = None
    """What is changed in a JSON body."""

    def flaws(self) -> Iterator[Flaw]:
        """Check that all are pairs, and what no message may carry."""
        whole = True
        for name, pairs in (("headers", self.headers), ("queries", self.queries)):
            for at, pair in enumerate(pairs or ()):
                if len(pair) != len(("name", "value")):
                    whole = False
                    yield Flaw(f"{name}[{at}]", f"must be a name and a value, not {pair}")
        if whole:
            headers = [(pair[0], pair[1]) for pair in self.headers or ()]
            yield from set_header_flaws("headers", headers)
            if any(name.lower() == "host" for name, _ in headers):
                yield Flaw("headers", "a request has one Host; use replace.headers")

    @property
    def empty(self) -> bool:
        """Is nothing added?"""
        return not any((self.headers, self.queries, self.body))


class Grpc(Wire):
    """Another end for gRPC calls; exchanges that are none are left alone."""

    status: Int32 | None = None
    """gRPC status code, as 14 for UNAVAILABLE; without it, that of the server."""
    message: str = ""
    """What the status says."""
    trailers: dict[str, str] | None = None
    """Further trailers, set over those of the server."""
    after_messages: Int32 = 0
    """How many messages of a response pass before the call ends so; of responses alone."""

    def flaws(self) -> Iterator[Flaw]:
        """Check that there is such a status."""
        if self.status is not None and not 0 <= self.status <= _MOST_GRPC_STATUS:
            yield Flaw("status", "gRPC status codes are 0 to 16")
        if self.after_messages < 0:
            yield Flaw("afterMessages", "must not be negative")
        if _CONTROL.search(self.message):
            yield Flaw("message", "has control characters")
        yield from set_header_flaws("trailers", (self.trailers or {}).items())

    @property
    def empty(self) -> bool:
        """Does every call end as the server says?"""
        return self.status is None and not self.trailers and not self.message
