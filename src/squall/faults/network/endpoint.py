"""The other end of a path, as users write it: an address, a network, a name, with a port or not."""

import re
from ipaddress import ip_network
from typing import Literal

from squall.api.wire import Wire

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LONGEST_NAME = 253
_BRACKETED = re.compile(r"\[(?P<host>[^\]]+)\](?::(?P<port>[0-9]{1,5}))?")
_WITH_PORT = re.compile(r"(?P<host>[^:]+):(?P<port>[0-9]{1,5})")
_LAST_PORT = 65535


class Endpoint(Wire):
    """The other end of a path."""

    host: str
    """A canonical network, as `10.0.0.7/32` and `fd00::7/128`, or a name still to be looked up."""
    port: int = 0
    """Destination port; 0 means any."""
    translated: Literal[True] | None = None
    """Nobody answers a ping there: it is the address of a Service. Absent else, to stay small."""

    @property
    def is_name(self) -> bool:
        """Must `host` be looked up?"""
        return "/" not in self.host


def endpoint(text: str) -> Endpoint:
    """Read one entry of `externalTargets`.

    Args:
        text: as `10.0.0.7`, `10.0.0.0/8`, `fd00::7`, `[fd00::7]:80`, `example.org:443`.

    Raises:
        ValueError: none of these.
    """
    ported = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    host, port = (ported["host"], int(ported["port"] or 0)) if ported else (text, 0)
    if port > _LAST_PORT:
        raise ValueError(f"{port} is not a port; ports end at {_LAST_PORT}")
    try:
        # A zone (fe80::1%eth0) has no meaning inside a target, and no place in a packet filter.
        return Endpoint(host=str(ip_network(host.partition("%")[0], strict=False)), port=port)
    except ValueError:
        pass
    if not _is_name(host):
        raise ValueError("is no address, CIDR, host name or host:port")
    return Endpoint(host=host, port=port)


def _is_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    # A last label of digits alone is a mistyped address: no such top-level domain can exist.
    return (
        len(text) <= _LONGEST_NAME
        and all(_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()
    )
