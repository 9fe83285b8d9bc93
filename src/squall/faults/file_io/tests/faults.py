"""File faults in few words, and a world to try them in."""

from squall.clock import FakeClock
from squall.faults.file_io.model import FileFault
from squall.injection.contract import Live
from squall.injection.world import NOWHERE, World
from squall.injection.world.files import Attributes, Mistake
from squall.injection.world.target import Target

TARGET = Target("default/web/app", "uid-web", "c0ffee", 4711, 99)
DATA = "/var/lib/data"


def world(files, clock=None):
    clock = clock or FakeClock()
    return World(clock, NOWHERE, NOWHERE, NOWHERE, NOWHERE, files=files)


def latency(milliseconds=100, **more):
    return FileFault(action="latency", delay_us=milliseconds * 1000, **{"volume": DATA, **more})


def failing(number=5, **more):
    return FileFault(action="fault", errno=number, **{"volume": DATA, **more})


def lying(**attributes):
    return FileFault(action="attrOverride", attributes=Attributes(**attributes), volume=DATA)


def mistaken(**more):
    return FileFault(action="mistake", mistake=Mistake(), **{"volume": DATA, **more})


def full(space=0):
    return FileFault(action="noSpace", space=space, volume=DATA)


def blackout():
    return FileFault(action="powerLoss", volume=DATA)


def live(fault, source="a/."):
    return Live(source, fault)
