"""Faults in names in few words, and a world to try them in."""

from squall.clock import FakeClock
from squall.faults.dns.model import DNSFault
from squall.injection.contract import Live
from squall.injection.world import NOWHERE, World
from squall.injection.world.names import Answer
from squall.injection.world.target import Target

TARGET = Target("default/web/app", "uid-web", "c0ffee", 4711, 99)
SERVFAIL, NXDOMAIN = Answer("code", 2), Answer("code", 3)
LATE = Answer("relayed")


def world(names, clock=None, *, allow_host_network=False):
    rest = NOWHERE
    return World(clock or FakeClock(), rest, rest, rest, rest, allow_host_network, names=names)


def fault(answer=SERVFAIL, *patterns, **more):
    return DNSFault(answer=answer, patterns=patterns, **more)


def live(asked, source="a/."):
    return Live(source, asked)
