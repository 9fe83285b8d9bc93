"""Services in front of pods: what a pod sends to one carries the Service's own address.

Only the node on its way translates that address into a pod's, so whoever cuts or delays packets
inside a pod has to know both.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from squall.api.cluster import Object

Name = tuple[str, str]
"""Namespace and name of a Service."""

_SERVICE_NAME = "kubernetes.io/service-name"
"""Label of an EndpointSlice: whose endpoints are in it."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What is behind a Service, or a part of it."""

    service: Name
    ready: frozenset[str] = frozenset()
    """Addresses that packets are led to."""
    others: frozenset[str] = frozenset()
    """Addresses of those that are not ready."""


def read_addresses(service: Object) -> tuple[str, ...]:
    """Read the addresses of a Service that nodes translate; none of one that is headless."""
    spec = service.get("spec") or {}
    listed = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return tuple(address for address in listed if address and address != "None")


def read_endpoints(slice_: Object) -> Endpoints:
    """Read an EndpointSlice; an endpoint that does not say whether it is ready counts as ready."""
    meta = slice_["metadata"]
    ready: set[str] = set()
    others: set[str] = set()
    if slice_.get("addressType") != "FQDN":
        for endpoint in slice_.get("endpoints") or ():
            is_ready = (endpoint.get("conditions") or {}).get("ready", True) is not False
            (ready if is_ready else others).update(endpoint.get("addresses") or ())
    name = (meta.get("labels") or {}).get(_SERVICE_NAME, "")
    return Endpoints((meta.get("namespace") or "", name), frozenset(ready), frozenset(others))


@dataclass(frozen=True)
class Services:
    """Every Service there is, and what is behind it."""

    addresses: Mapping[Name, tuple[str, ...]] = field(default_factory=dict)
    """Addresses of Services, as `read_addresses` gives them."""
    endpoints: Sequence[Endpoints] = ()
    """Any number of parts for each Service."""

    def in_front_of(self, pods: Collection[str]) -> dict[Name, tuple[str, ...]]:
        """Find the Services that lead to these pods and to no others; gives their addresses.

        Where nothing behind a Service is ready, everything behind it counts: a fault that makes its
        own targets fail their probes would else lift itself.

        Args:
            pods: addresses of pods.
        """
        targets = frozenset(pods)
        found = {name for address in targets for name in self._behind.get(address, ())}
        return {
            name: self.addresses[name]
            for name in sorted(found)
            if self.addresses.get(name) and self._leads_to(name) <= targets
        }

    def _leads_to(self, name: Name) -> frozenset[str]:
        ready, others = self._by_name[name]
        return ready or others

    @cached_property
    def _by_name(self) -> Mapping[Name, tuple[frozenset[str], frozenset[str]]]:
        united: dict[Name, tuple[frozenset[str], frozenset[str]]] = {}
        for part in self.endpoints:
            ready, others = united.get(part.service, (frozenset(), frozenset()))
            united[part.service] = (ready | part.ready, others | part.others)
        return united

    @cached_property
    def _behind(self) -> Mapping[str, Sequence[Name]]:
        """Services by the addresses behind them."""
        names: dict[str, list[Name]] = {}
        for name, (ready, others) in self._by_name.items():
            for address in ready | others:
                names.setdefault(address, []).append(name)
        return names
