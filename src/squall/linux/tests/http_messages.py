"""Valid messages of HTTP/1.1, as odd as the standard lets them be: RFC 9112."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

_NAME = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VALUE = [*range(0x21, 0x7F), *range(0x80, 0x100)]
_METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "MKCOL", "X-OWN", "get")
_TARGETS = ("/", "*", "/a%2Fb;c=d?e=f&&g#", "http://a.test:80/x?y", "//", "/{odd}|path", "/?a=[b]")
_OWN = {"content-length", "transfer-encoding", "connection", "upgrade", "expect", "trailer"}
_MOST_BODY = 60_000


@dataclass(frozen=True)
class Exchange:
    """What a client says, and what its server answers."""

    request: bytes
    response: bytes
    last: bool
    """The response goes on to the end of the connection."""


def chance(seed: int) -> random.Random:
    """Make chance that is the same each time."""
    return random.Random(seed)  # noqa: S311


def exchange(draw: random.Random, *, last: bool) -> Exchange:
    """Make one up.

    Args:
        draw: where chance comes from.
        last: whether it may end with its connection.
    """
    method = draw.choice(_METHODS)
    end = b"\r\n" if draw.random() < 0.9 else b"\n"
    start = f"{method} {draw.choice(_TARGETS)} HTTP/1.1".encode()
    sized, body = draw.choice((_bare, _bare, _counted, _chunked))(draw)
    request = _head(draw, start, sized, end) + body
    early = b""
    for _ in range(draw.choice((0, 0, 0, 1, 2))):
        early += _head(draw, f"HTTP/1.1 {draw.choice((100, 102, 103))} Early".encode(), [])
    reason = bytes(draw.choices(_VALUE, k=draw.choice((0, 2, 20))))
    code = draw.choice((200, 200, 206, 304, 204, 404, 500, 299, 599))
    ends = last and method != "HEAD" and code not in (204, 304) and draw.random() < 0.5
    version = b"1.0" if ends else b"1.1"
    sized, body = (_bare if ends else draw.choice((_counted, _chunked)))(draw)
    if ends:
        body = draw.randbytes(draw.randrange(_MOST_BODY))
    if method == "HEAD" or code == 304:  # the size is what a GET would have
        body = b""
    if code == 204:
        sized, body = [], b""
    head = _head(draw, b"HTTP/%b %d %b" % (version, code, reason), sized)
    return Exchange(request, early + head + body, ends)


def _head(draw: random.Random, start: bytes, sized: list[bytes], end: bytes = b"\r\n") -> bytes:
    lines = [_header(draw) for _ in range(draw.choice((0, 1, 5, 60)))]
    for line in sized:
        lines.insert(draw.randint(0, len(lines)), line)
    return end.join((start, *lines, b"", b""))


def _header(draw: random.Random) -> bytes:
    name = "".join(draw.choices(_NAME, k=draw.choice((1, 5, 14, 17))))
    name = name if name.lower() not in _OWN else "x"
    value = bytes(draw.choices(_VALUE, k=draw.choice((0, 1, 30, 500))))
    before, behind = (draw.choice((b"", b" ", b" \t ")) for _ in range(2))
    return name.encode() + b":" + before + value + behind


def _bare(_: random.Random) -> tuple[list[bytes], bytes]:
    return [], b""


def _counted(draw: random.Random) -> tuple[list[bytes], bytes]:
    body = draw.randbytes(draw.choice((0, 1, 100, draw.randrange(_MOST_BODY))))
    name = draw.choice((b"Content-Length", b"content-length", b"CONTENT-LENGTH"))
    length = b"%d" % len(body) if draw.random() < 0.9 else b"000%d" % len(body)
    return [name + b": " + length], body


def _chunked(draw: random.Random) -> tuple[list[bytes], bytes]:
    body = b""
    for _ in range(draw.choice((0, 1, 2, 30))):
        data = draw.randbytes(draw.choice((1, 15, 16, 3000)))
        size: Callable[..., str] = draw.choice(("{:x}", "{:X}", "{:05x}")).format
        extension = draw.choice((b"", b"", b";a", b';b="c;d"'))
        body += size(len(data)).encode() + extension + b"\r\n" + data + b"\r\n"
    body += draw.choice((b"0", b"000")) + b"\r\n"
    for _ in range(draw.choice((0, 0, 1, 3))):
        body += _header(draw) + b"\r\n"
    name = draw.choice((b"Transfer-Encoding: chunked", b"transfer-encoding:  Chunked "))
    return [name], body + b"\r\n"


def pieces(draw: random.Random, whole: bytes) -> list[bytes]:
    """Cut bytes anywhere."""
    cuts = sorted(draw.randrange(len(whole) + 1) for _ in range(draw.choice((0, 0, 1, 4))))
    edges = [0, *cuts, len(whole)]
    parts = (whole[a:b] for a, b in itertools.pairwise(edges))
    return [part for part in parts if part]
