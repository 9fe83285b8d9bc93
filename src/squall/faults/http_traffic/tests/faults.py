"""HTTP faults in few words, and a world to try them in."""

from types import MappingProxyType

from squall.clock import FakeClock
from squall.faults.http_traffic.model import HTTPChaosSpec, HTTPFault, share
from squall.injection.contract import Live
from squall.injection.world import World
from squall.injection.world.fake_trust import FakeTrust
from squall.injection.world.target import Target

TARGET = Target("default/web", "uid-web", "c0ffee", 4711, 99)
SELECTOR = {"selector": {}, "mode": "one"}


def world(http, clock=None, *, trust=None, allow_host_network=False):
    nothing, clock = None, clock or FakeClock()
    return World(
        *(clock, nothing, nothing, nothing, nothing, allow_host_network),
        http=http,
        trust=trust or FakeTrust(http.fate),
    )


def spec(**fields):
    asked = {**SELECTOR, "target": "Request", "port": 80, **fields}
    return HTTPChaosSpec.model_validate(asked)


def fault(**fields) -> HTTPFault:
    """What a target is told, as it comes over the wire."""
    told = share(spec(**fields), ".", {}).model_dump(mode="json", by_alias=True, exclude_none=True)
    return HTTPFault.model_validate(told)


def live(asked, source="a/.", secrets=MappingProxyType({})):
    return Live(source, asked, secrets)
