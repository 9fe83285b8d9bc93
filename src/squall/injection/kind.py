"""A fault kind, seen from outside its room."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

from squall.api.cluster import Resource
from squall.api.experiment import ExperimentSpec
from squall.api.wire import Fault


@dataclass(frozen=True, slots=True)
class Peer:
    """One selected target as others of its experiment see it; or a Service in front of targets."""

    id: str
    """Record id; namespace and name of a Service."""
    addresses: tuple[str, ...] = ()
    """Every address of its pod, IPv4 and IPv6."""
    translated: tuple[str, ...] = ()
    """Addresses that only nodes translate into those of pods: nobody answers a ping there."""


Peers = Mapping[str, Sequence[Peer]]
"""Who was selected, by selector key: `.` for the main selector, `.Target` for a second one."""


_OF_NETWORKS = {"dns", "http", "network"}
"""What needs begin with that are met by acting on a network namespace."""


class SecretKey(NamedTuple):
    """One value in a Secret."""

    namespace: str
    name: str
    key: str

    def __str__(self) -> str:
        """By this name it is among the `secrets` of a `Live`."""
        return "/".join(self)


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What a room tells the rest of the house; all else in it is private.

    `share`, `one_shot`, `per_container` and `secrets` are pure and live in the room's `model.py`;
    injector, striker and probe are `module:Class` strings, so that only the agent imports them.
    """

    resource: Resource
    """Its kind on the wire, such as NetworkChaos in `chaos-mesh.org/v1alpha1`."""

    spec: type[ExperimentSpec]
    """What its `spec` may say; validates and gives the CRD's schema."""

    fault: type[Fault]
    """What one target is told; sent to the agent inside a NodeFault."""

    share: Callable[[Any, str, Peers], Fault | None]
    """(spec, selector key, peers) -> what targets selected by that key get; None: nothing."""

    needs: tuple[str, ...] = ()
    """What the host must have, such as `network:partition`; `squall doctor` reports by it."""

    needed: Callable[[Any], tuple[str, ...]] | None = None
    """(spec) -> what of `injection.privileges` its action takes; None: all that `needs` names."""

    injector: str = ""
    """`module:Class`, constructed with a `World`; empty when no action of the kind is a state."""

    striker: str = ""
    """`module:Class`, constructed with a `World`; empty when no action is one-shot."""

    probe: str = ""
    """`module:Class`, constructed with a `World`."""

    one_shot: Callable[[Any], bool] = lambda _: False
    """(spec) -> True where the action cannot be undone and goes to the striker."""

    per_container: Callable[[Any], bool] = lambda _: False
    """(spec) -> True where records are `namespace/pod/container`, else `namespace/pod`."""

    by_api: Callable[[Any], bool] = lambda _: False
    """(spec) -> True where the API alone brings the fault about, so that no agent is needed."""

    secrets: Callable[[Any], tuple[SecretKey, ...]] = lambda _: ()
    """(spec) -> what of Secrets its faults need. The controller reads it, and the agent gets it
    sealed, beside the fault: see `Live.secrets`."""

    columns: tuple[tuple[str, str], ...] = ()
    """Printer columns of upstream: (name, JSON path of a string)."""

    @property
    def by_network(self) -> bool:
        """Does it act on a whole network? Pods on that of their node are then spared."""
        return any(need.partition(":")[0] in _OF_NETWORKS for need in self.needs)


def load(path: str) -> Any:  # noqa: ANN401  (each room has its own types)
    """Import `module:Class` and return the class.

    Raises:
        ImportError: no such module or class.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except AttributeError as missing:
        raise ImportError(f"{path}: {missing}") from missing
