"""What faults can touch: the outside world, as ports, each with a fake beside it."""

from dataclasses import dataclass, field
from typing import Any, NoReturn

from squall.clock import Clock
from squall.errors import Unsupported
from squall.injection.world.containers import Containers
from squall.injection.world.files import Files
from squall.injection.world.http import Http
from squall.injection.world.names import Names
from squall.injection.world.network import Network
from squall.injection.world.pods import Pods
from squall.injection.world.stressors import Stressors
from squall.injection.world.target import Target
from squall.injection.world.trust import Trust


class _Nowhere:
    """Stands for a port that a world was made without: whoever needs it was given the wrong one."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"this world has no port with {name}; give it one when it is made")


NOWHERE: Any = _Nowhere()
"""In place of a port that nobody in a world asks for."""


@dataclass(frozen=True, slots=True)
class World:
    """Every port an injector, striker or probe may use; it is constructed with one of these."""

    clock: Clock
    network: Network
    containers: Containers
    pods: Pods
    stressors: Stressors
    allow_host_network: bool = False
    """Installation's setting: may a target on the network of its node be hit?"""
    names: Names = field(default=NOWHERE, kw_only=True)
    http: Http = field(default=NOWHERE, kw_only=True)
    files: Files = field(default=NOWHERE, kw_only=True)
    trust: Trust = field(default=NOWHERE, kw_only=True)

    def spare_the_node(self, target: Target, faults: str) -> None:
        """Refuse a target whose network is that of its node: everybody there would suffer.

        Args:
            target: who is to be hit.
            faults: what of, as `network chaos`.

        Raises:
            Unsupported: it is such a target, and no operator has allowed it.
        """
        if target.host_network and not self.allow_host_network:
            raise Unsupported(
                f"it's dangerous to inject {faults} on a pod({target.id}) with `hostNetwork`;"
                " an operator may allow it with the setting allowHostNetwork"
            )
