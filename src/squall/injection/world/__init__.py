"""What faults can touch: the outside world, as ports, each with a fake beside it."""

from dataclasses import dataclass

from squall.clock import Clock
from squall.injection.world.containers import Containers
from squall.injection.world.network import Network
from squall.injection.world.pods import Pods
from squall.injection.world.stressors import Stressors


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
