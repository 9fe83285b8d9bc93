"""Installations that act in one namespace each: side by side, with rights there alone."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from testbed.cluster import Cluster
from tests.cluster.releases import (
    confirmed,
    create,
    delay,
    everything,
    pods,
    released,
    wait_until,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SHOPS = ("shop-a", "shop-b")


def home(shop: str) -> str:
    """Where the installation of a shop lives; its release is called so, too."""
    return f"squall-{shop}"


def accounts(shop: str) -> set[str]:
    """Who acts for the installation of a shop."""
    return {f"system:serviceaccount:{home(shop)}:squall-{who}" for who in ("controller", "agent")}


@pytest.fixture(scope="module")
def two(loaded: Cluster) -> Iterator[Cluster]:
    """Two installations, each with a web server in its namespace, and one in neither."""
    for name in (*SHOPS, *map(home, SHOPS), "outside"):
        loaded.make_namespace(name)
    for shop in (*SHOPS, "outside"):
        pods(loaded, shop, "web")
    with ExitStack() as releases:
        for number, shop in enumerate(SHOPS):
            values = ("clusterScoped=false", f"targetNamespace={shop}")
            definitions = f"crds.install={'false' if number else 'true'}"
            releases.enter_context(released(loaded, *values, definitions, name=home(shop)))
        yield loaded
    for name in (*SHOPS, *map(home, SHOPS), "outside"):
        loaded.kubectl("delete", "namespace", name, "--wait=false")


def test_each_hits_its_own_namespace_and_asks_for_nothing_else(two: Cluster) -> None:
    for shop in SHOPS:
        create(two, delay(shop))
    for shop in SHOPS:
        confirmed(two, shop, 1)
        listed = json.loads(two.kubectl("get", "nodefaults", f"-n={home(shop)}", "-ojson"))
        targets = [one["id"] for order in listed["items"] for one in order["spec"]["targets"]]
        assert {name.split("/")[0] for name in targets} == {shop}
    two.kubectl("delete", "networkchaos", "slow", f"-n={SHOPS[0]}", "--timeout=60s")
    confirmed(two, SHOPS[1], 1)
    ours = {account for shop in SHOPS for account in accounts(shop)}
    refused = [request for request in two.requests(403) if request.user in ours]
    assert refused == []


def test_who_reaches_outside_is_refused(two: Cluster) -> None:
    elsewhere = {"namespaces": ["outside"], "labelSelectors": {"app": "web"}}
    said = "is outside of shop-a, the namespace of this installation"
    with pytest.raises(RuntimeError, match=said):
        create(two, delay(SHOPS[0], "far", selector=elsewhere))


def test_who_is_outside_is_told_that_nobody_acts(two: Cluster) -> None:
    command = two.kubectl_command("create", "-f=-")
    manifest = json.dumps(delay("outside"))
    done = subprocess.run(command, input=manifest, capture_output=True, text=True, check=True)
    for shop in SHOPS:
        assert f"Squall in namespace {home(shop)} acts in {shop} alone" in done.stderr
    two.kubectl("delete", "networkchaos", "slow", "-n=outside", "--timeout=60s")


def test_one_goes_and_the_other_stays(loaded: Cluster, two: Cluster) -> None:
    three, namespace = "squall-shop-c", "shop-c"
    for name in (three, namespace):
        loaded.make_namespace(name)
    before = everything(two)
    values = ("clusterScoped=false", f"targetNamespace={namespace}", "crds.install=false")
    with released(loaded, *values, name=three):
        create(two, delay(SHOPS[0], "stays"))
        confirmed(two, SHOPS[0], 1, "stays")
    confirmed(two, SHOPS[0], 1, "stays")
    wait_until(
        lambda: left(before, everything(two)) == set(), lambda: left(before, everything(two))
    )
    two.kubectl("delete", "networkchaos", "stays", f"-n={SHOPS[0]}", "--timeout=60s")
    for name in (three, namespace):
        loaded.kubectl("delete", "namespace", name, "--wait=false")


def left(before: set[str], now: set[str]) -> set[str]:
    """Name what the third one left behind."""
    return {line for line in now - before if "shop-c" in line}
