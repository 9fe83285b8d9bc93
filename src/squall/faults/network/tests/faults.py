"""Network faults in few words, and a world to try them in."""

from squall.clock import FakeClock
from squall.faults.network.endpoint import endpoint
from squall.faults.network.model import NetworkFault, WantedCut, WantedShape
from squall.injection.contract import Live
from squall.injection.world import World
from squall.injection.world.network import Impairment
from squall.injection.world.target import Target

TARGET = Target("default/web", "uid-web", "c0ffee", 4711, 99)


def world(network, clock=None, *, allow_host_network=False):
    nothing = None
    return World(clock or FakeClock(), network, nothing, nothing, nothing, allow_host_network)


def ends(hosts):
    return None if hosts is None else tuple(endpoint(host) for host in hosts)


def partition(hosts=None, *, way="out", device=""):
    return NetworkFault(
        action="partition", cuts=(WantedCut(way=way, peers=ends(hosts), device=device),)
    )


def shaping(hosts=None, *, action="netem", device="", **impairment):
    shape = WantedShape(peers=ends(hosts), impairment=Impairment(**impairment), device=device)
    return NetworkFault(action=action, shape=shape)


def delay(hosts=None, *, delay_us=100_000):
    return shaping(hosts, action="delay", delay_us=delay_us)


def live(fault, source="a/."):
    return Live(source, fault)
