"""Live faults of one target, put together into one state of its network. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from squall.faults.network.endpoint import Endpoint
from squall.faults.network.model import NetworkFault
from squall.injection.contract import Live
from squall.injection.world.network import Cut, NetworkState, Peers, Shape, canonical

Addresses = Mapping[str, Sequence[str]]
"""Canonical networks of every host name, by name; one without any is cut from nothing."""


def names(live: Iterable[Live[NetworkFault]]) -> frozenset[str]:
    """Collect every name that must be looked up."""
    return frozenset(
        endpoint.host
        for one in live
        for peers in (*(cut.peers for cut in one.fault.cuts), _shaped(one.fault))
        for endpoint in peers or ()
        if endpoint.is_name
    )


def merge(live: Iterable[Live[NetworkFault]], addresses: Addresses) -> NetworkState:
    """Put every cut beside the others, and every shape behind those of older faults.

    A fault whose other end has no address yet adds nothing.
    """
    cuts: list[Cut] = []
    shapes: list[Shape] = []
    for one in live:
        for cut in one.fault.cuts:
            peers = _peers(cut.peers, addresses)
            if peers != ():
                cuts.append(Cut(one.source, cut.way, peers, cut.device))
        if shape := one.fault.shape:
            peers = _peers(shape.peers, addresses)
            if peers != ():
                shapes.append(Shape(one.source, peers, shape.impairment, shape.device))
    return NetworkState(tuple(cuts), tuple(shapes))


def _shaped(fault: NetworkFault) -> tuple[Endpoint, ...] | None:
    return fault.shape.peers if fault.shape else None


def _peers(
    endpoints: tuple[Endpoint, ...] | None, addresses: Addresses
) -> tuple[Peers, ...] | None:
    if endpoints is None:
        return None
    return canonical(
        Peers(cidr, endpoint.port)
        for endpoint in endpoints
        for cidr in (addresses.get(endpoint.host, ()) if endpoint.is_name else (endpoint.host,))
    )
