"""HTTPChaos on pods of a cluster: felt by those who call them, proven, and gone without a trace."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from testbed.cluster.waiting import until
from tests.cluster.installed import Experiment, Installed, pod, selector

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ASK = """
import json, sys, time, urllib.error, urllib.request
told = []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
            code = answer.status
    except urllib.error.HTTPError as refused:
        code = refused.code
    except OSError:
        code = 0
    told.append([code, (time.perf_counter() - began) * 1000])
print(json.dumps(told))
"""
SERVES = ("python3", "-m", "http.server", "--bind", "::", "80")


@dataclass
class Shop:
    """A client on one node, a server on the other."""

    installed: Installed
    namespace: str

    def ask(self, times: int = 1, path: str = "/") -> list[tuple[int, float]]:
        """Call the server from the client: code and milliseconds of each; code 0: no answer."""
        address = self.installed.address(self.namespace, "server")
        host = f"[{address}]" if ":" in address else address
        asked = ("python3", "-c", ASK, f"http://{host}{path}", str(times))
        told: list[tuple[int, float]] = json.loads(
            self.installed.run(self.namespace, "client", *asked)
        )
        return told

    def chaos(self, **spec: Any) -> Any:
        """Have an experiment on the server."""
        server = {"mode": "all", "selector": selector(self.namespace, app="server")}
        asked = {**server, "port": 80, **spec}
        return self.installed.experiment("HTTPChaos", self.namespace, asked)


@pytest.fixture(scope="module")
def shop(installed: Installed) -> Iterator[Shop]:
    namespace = f"http-{secrets.token_hex(3)}"
    installed.cluster.make_namespace(namespace)
    installed.pods(
        namespace,
        pod(namespace, "client", "node1"),
        pod(namespace, "server", "node2", *SERVES),
    )
    shop = Shop(installed, namespace)
    until("the server", lambda: shop.ask()[0][0] == 200, 30)
    yield shop
    installed.kubectl("delete", "namespace", namespace, "--wait=false")


def test_answers_are_changed_slowed_down_and_broken_off_all_at_once_and_one_by_one(
    shop: Shop,
) -> None:
    with shop.installed.leaves_nothing(shop.namespace):
        with shop.chaos(target="Response", path="/", replace={"code": 503}) as changed:
            changed.confirmed()
            assert shop.ask()[0][0] == 503
            with shop.chaos(target="Request", delay="100ms") as slowed:
                slowed.confirmed()
                code, took_ms = shop.ask()[0]
                assert (code, took_ms > 100) == (503, True)
                with shop.chaos(target="Request", path="/gone", abort=True) as broken:
                    broken.confirmed()
                    assert shop.ask(path="/gone")[0][0] == 0
                    assert shop.ask(path="/other")[0][0] == 404
                    changed.delete()
                    assert shop.ask()[0][0] == 200
                assert shop.ask(path="/gone")[0][0] == 404
                assert shop.ask()[0][1] > 100
        assert shop.ask()[0][0] == 200
        assert min(took for _, took in shop.ask(5)) < 100
    restarts = shop.installed.read("pod", "server", shop.namespace)["status"]
    assert restarts["containerStatuses"][0]["restartCount"] == 0


def test_a_share_of_the_answers_is_hit_and_always_the_same_ones(shop: Shop) -> None:
    codes = []
    for _ in range(2):
        with shop.chaos(
            target="Response", method="GET", percent=50, seed=3, replace={"code": 500}
        ) as flaky:
            flaky.wait("condition=AllInjected")
            codes.append([code for code, _ in shop.ask(40)])
    assert codes[0] == codes[1]
    assert 8 <= codes[0].count(500) <= 32


def events(experiment: Experiment) -> list[str]:
    return [
        event["message"]
        for record in experiment.records()
        for event in record["events"]
        if "message" in event
    ]


def test_a_secret_that_is_missing_is_an_error_of_the_record(shop: Shop) -> None:
    tls = {"secretName": "none", "secretNamespace": shop.namespace, "certName": "c", "keyName": "k"}
    with shop.chaos(target="Request", abort=True, tls=tls) as sealed:
        until("the reason", lambda: "Secret" in "".join(events(sealed)), 30)
        assert "may not read" in "".join(events(sealed))
        assert sealed.records()[0]["phase"] != "Injected"
        assert shop.ask()[0][0] == 200
