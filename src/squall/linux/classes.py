"""Which packets of a device pass through which shapes, as first-match rules. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from squall.injection.world.network import Shape

_Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Match:
    """Packets to one of `networks`, all of one family and length, pass through `shapes`."""

    networks: tuple[str, ...] | None
    """None: every packet that no rule before this one took."""
    port: int
    shapes: tuple[int, ...]
    """Positions of the shapes, in order."""


def matches(shapes: Sequence[Shape]) -> list[Match]:
    """Sort packets by the shapes that match them, the narrowest networks first.

    Two networks are either apart or one within the other, so that what is true of a network is
    true of all in it, but for narrower networks, which come before.
    """
    peers = {peer for shape in shapes for peer in shape.peers or ()}
    networks = sorted(
        {ip_network(peer.cidr) for peer in peers},
        key=lambda network: (-network.prefixlen, network.version, network),
    )
    ports = sorted({peer.port for peer in peers} | {0}, reverse=True)
    found: dict[tuple[int, int, int, tuple[int, ...]], list[str]] = {}
    for network in networks:
        for port in ports:
            hit = tuple(at for at, shape in enumerate(shapes) if _covers(shape, network, port))
            if hit:
                key = network.prefixlen, network.version, port, hit
                found.setdefault(key, []).append(str(network))
    # A network's ports come before the rule for all of its ports; lengths stay in order.
    ordered = sorted(found.items(), key=lambda item: (-item[0][0], item[0][1], -item[0][2]))
    rules = [Match(tuple(cidrs), port, hit) for (_, _, port, hit), cidrs in ordered]
    everywhere = tuple(at for at, shape in enumerate(shapes) if shape.peers is None)
    return [*rules, Match(None, 0, everywhere)] if everywhere else rules


def combinations(rules: Sequence[Match]) -> Iterator[tuple[int, ...]]:
    """Name every combination of shapes that some packet passes through, each once."""
    yield from dict.fromkeys(rule.shapes for rule in rules)


def _covers(shape: Shape, network: _Network, port: int) -> bool:
    return shape.peers is None or any(
        peer.port in {0, port} and _within(network, ip_network(peer.cidr)) for peer in shape.peers
    )


def _within(inner: _Network, outer: _Network) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return False
