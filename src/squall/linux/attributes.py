"""Attributes of netlink messages: a length, a kind and a value, aligned to four bytes."""

import struct
from collections.abc import Iterator

_HEADER = struct.Struct("=HH")
_KIND_BITS = 0x3FFF
"""The two others mark byte order and nesting."""


def attribute(kind: int, value: bytes) -> bytes:
    """Pack one."""
    return _HEADER.pack(_HEADER.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Read one after the other, each as its kind and value."""
    while len(body) >= _HEADER.size:
        size, kind = _HEADER.unpack_from(body)
        yield kind & _KIND_BITS, body[_HEADER.size : size]
        body = body[(size + 3) & ~3 :]
