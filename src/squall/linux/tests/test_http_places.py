"""Where the HTTP proxy takes connections: where a server listens, and nowhere else."""

import contextlib
import http.client
import time

import pytest

from squall.linux.tests.http_servers import (
    Server,
    counted,
    dialled,
    listening,
    mirror,
    ordered,
    rule,
)
from squall.linux.tests.two_namespaces import TwoNamespaces
from testbed.entered import wait

pytestmark = pytest.mark.host

NEAR, NEAR_V6 = TwoNamespaces.NEAR, TwoNamespaces.NEAR_V6
FLAKY = rule("Response", replace={"code": 503})


def code(netns: str, address: str) -> int:
    client = http.client.HTTPConnection(address, 80, timeout=5)
    with contextlib.closing(client):
        client.sock = dialled(netns, address, 80)
        client.request("GET", "/")
        return client.getresponse().status


@pytest.mark.parametrize(("called", "silent"), [(NEAR, NEAR_V6), (NEAR_V6, NEAR)])
async def test_who_calls_by_a_family_that_nobody_serves_is_refused(net, proxy, called, silent):
    # Such a client takes the next address of a name; one that is let in and reset gives up.
    with contextlib.closing(Server(listening(net.near, called, 80), mirror)):
        await ordered(proxy, FLAKY)
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                dialled(net.far, silent, 80)
            assert code(net.far, called) == 503
    assert (await counted(proxy))["exchanges"] == 3


async def test_a_server_that_comes_later_is_met_too_and_one_that_went_is_refused(net, proxy):
    await ordered(proxy, FLAKY)
    with pytest.raises(ConnectionRefusedError):
        dialled(net.far, NEAR, 80)
    for _ in range(2):
        with contextlib.closing(Server(listening(net.near, "::", 80), mirror)):
            # It may pass until we have seen its server; then it is reset, so that it comes again.
            with contextlib.suppress(ConnectionError):
                assert felt(dialled(net.far, NEAR, 80))
            assert code(net.far, NEAR) == 503
            assert code(net.far, NEAR_V6) == 503
        wait(lambda: not reached(net.far))  # nobody serves it any more


def felt(connection) -> bool:
    """Ask again and again on one connection, until an answer is not the server's own."""
    client = http.client.HTTPConnection(NEAR, 80, timeout=5)
    client.sock = connection
    ends = time.monotonic() + 10
    with contextlib.closing(client):
        while time.monotonic() < ends:
            client.request("GET", "/")
            answer = client.getresponse()
            answer.read()
            if answer.status == 503:
                return True
    return False


def reached(netns: str) -> bool:
    try:
        dialled(netns, NEAR, 80).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:
        pass
    return True
