"""Qdiscs over netlink: listed, put in place and removed.

Source: linux/rtnetlink.h, linux/gen_stats.h.
"""

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import Self

from squall.errors import SquallError, TryAgain, Unsupported
from squall.linux.attributes import attribute, attributes
from squall.linux.disciplines import KINDS, Discipline

ROOT = 0xFFFFFFFF
"""Parent of the qdisc that a device sends through."""

_NEW, _DELETE, _GET = 36, 37, 38
_REQUEST, _ACK, _DUMP, _REPLACE, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x400
_ERROR, _DONE = 2, 3
_KIND, _OPTIONS, _STATS2 = 1, 2, 7
_BASIC_STATS, _QUEUE_STATS = 1, 3
_SOL_NETLINK, _EXT_ACK = 270, 11
_MESSAGE_OF_ERROR = 1
_ACK_TLVS, _CAPPED = 0x200, 0x100
_LONGEST_ANSWER = 1 << 18


@dataclass(frozen=True, slots=True)
class Qdisc:
    """One qdisc as the kernel has it."""

    device: int
    """Its number."""
    handle: int
    """`major:0`; 0 for what the kernel put there by itself."""
    parent: int
    kind: str
    discipline: Discipline | None
    """None for other kinds."""
    packets: int
    """Sent on since it was made."""
    bytes: int
    dropped: int


class TrafficControl:
    """A netlink socket in the namespace of the thread that made it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._socket.settimeout(5.0)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def qdiscs(self) -> list[Qdisc]:
        """List the qdiscs of every device."""
        return [_qdisc(body) for body in self._ask(_GET, _DUMP, struct.pack("=20x"))]

    def put(self, device: int, handle: int, parent: int, discipline: Discipline) -> None:
        """Make a qdisc, or change the one with this handle, which must be of the same kind.

        Raises:
            Unsupported: the kernel has no such qdisc, or refuses these options.
            TryAgain: anything else.
        """
        head = struct.pack("=BxxxiIII", socket.AF_UNSPEC, device, handle, parent, 0)
        kind = attribute(_KIND, discipline.kind.encode() + b"\0")
        try:
            self._ask(
                _NEW,
                _ACK | _CREATE | _REPLACE,
                head + kind + attribute(_OPTIONS, discipline.encode()),
            )
        except OSError as failure:
            raise _refusal(failure, discipline.kind) from failure

    def delete(self, device: int, handle: int, parent: int) -> None:
        """Remove a qdisc with all below it; one that is not there is fine."""
        head = struct.pack("=BxxxiIII", socket.AF_UNSPEC, device, handle, parent, 0)
        try:
            self._ask(_DELETE, _ACK, head)
        except OSError as failure:
            if failure.errno not in {errno.ENOENT, errno.EINVAL, errno.ENODEV}:
                raise TryAgain(f"removing a qdisc: {failure}") from failure

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        self._sequence += 1
        length = 16 + len(body)
        head = struct.pack("=IHHII", length, kind, flags | _REQUEST, self._sequence, 0)
        self._socket.send(head + body)
        answers: list[bytes] = []
        while True:
            received = self._socket.recv(_LONGEST_ANSWER)
            while received:
                size, answer, bits, sequence, _ = struct.unpack_from("=IHHII", received)
                body, received = received[16:size], received[(size + 3) & ~3 :]
                if sequence != self._sequence:
                    continue
                if answer == _ERROR:
                    _raise(body, bits)
                if answer in {_ERROR, _DONE}:
                    return answers
                answers.append(body)


def _raise(body: bytes, flags: int) -> None:
    """Raise what an acknowledgement says; nothing where it says that all is well."""
    code = -struct.unpack_from("=i", body)[0]
    if not code:
        return
    message = os.strerror(code)
    if flags & _ACK_TLVS:
        asked = 16 if flags & _CAPPED else struct.unpack_from("=I", body, 4)[0]
        more = dict(attributes(body[4 + asked :]))
        message = more.get(_MESSAGE_OF_ERROR, message.encode()).rstrip(b"\0").decode()
    raise OSError(code, message)


def _refusal(failure: OSError, kind: str) -> SquallError:
    if failure.errno == errno.ENOENT:
        return Unsupported(f"this kernel has no qdisc {kind}; load the module sch_{kind}")
    if failure.errno in {errno.EINVAL, errno.ERANGE, errno.EOPNOTSUPP}:
        return Unsupported(f"this kernel refuses the qdisc {kind}: {failure.strerror}")
    return TryAgain(f"qdisc {kind}: {failure.strerror}")


def _qdisc(body: bytes) -> Qdisc:
    _, device, handle, parent, _ = struct.unpack_from("=BxxxiIII", body)
    more = dict(attributes(body[20:]))
    stats = dict(attributes(more.get(_STATS2, b"")))
    size, packets = struct.unpack_from("=QI", stats.get(_BASIC_STATS, bytes(12)))
    dropped = struct.unpack_from("=8xI", stats.get(_QUEUE_STATS, bytes(12)))[0]
    kind = more[_KIND].rstrip(b"\0").decode()
    known = KINDS.get(kind)
    options = more.get(_OPTIONS)
    discipline = known.decode(options) if known and options else None
    return Qdisc(device, handle, parent, kind, discipline, packets, size, dropped)
