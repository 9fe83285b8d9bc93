"""`squall install` and `squall uninstall` on a cluster of two nodes: from a bundle, node lost."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.cluster import Cluster
from testbed.cluster.namespaces import inside, run
from testbed.cluster.nodes import PAUSE
from testbed.images.build import squall_image
from testbed.traces import difference
from tests.cluster.charts import NAMESPACE
from tests.cluster.releases import (
    confirmed,
    create,
    delay,
    everything,
    make_agents_folders,
    pods,
    wait_until,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SQUALL = Path(sys.executable).with_name("squall")
WATCH = """
table inet outside {
  chain out {
    type filter hook postrouting priority 0;
    oifname "lo" return
    ip daddr { 10.89.0.0/16, 10.96.0.0/12, 10.244.0.0/16, 224.0.0.0/4 } return
    ip6 daddr { fd00:10::/32, fe80::/10, ff00::/8 } return
    counter name away
  }
  counter away { }
}
"""
"""Counts what is meant for anywhere but the cluster."""


def squall(cluster: Cluster, *arguments: str | Path, within: bool = False) -> str:
    """Run squall against the cluster, on this machine or in the control plane's own network."""
    command = [str(SQUALL), *map(str, arguments)]
    if "bundle" not in arguments[:1]:
        command.append(f"--kubeconfig={cluster.kubeconfig}")
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    done = subprocess.run(
        inside(cluster.net, *command) if within else command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout + done.stderr


def test_a_bundle_installs_where_nothing_else_is_reached(
    loaded: Cluster, namespace: str, tmp_path: Path
) -> None:
    bundle = tmp_path / "squall-bundle.tar"
    squall(loaded, "bundle", "-o", bundle, "--image-archive", squall_image())
    pods(loaded, namespace, "web-1", "web-2")
    make_agents_folders(loaded)
    objects, untouched = everything(loaded), loaded.state(namespace)
    options = ("install", "--bundle", bundle, f"--pause-image={PAUSE}")
    with nothing_leaves(loaded):
        assert "Squall is ready" in squall(loaded, *options, within=True)
        create(loaded, delay(namespace))
        confirmed(loaded, namespace, 2)
        again = squall(loaded, *options, within=True)
        assert ", 0 configured, " in again
        assert "0 created" in again
        assert "nothing of this installation is left" in squall(loaded, "uninstall", within=True)
    assert difference(untouched, loaded.state(namespace)) == ""
    wait_until(lambda: everything(loaded) - objects == set(), lambda: everything(loaded) - objects)


def test_a_node_that_does_not_answer_is_named(loaded: Cluster, namespace: str) -> None:
    pods(loaded, namespace, "web-1", "web-2")
    make_agents_folders(loaded)
    objects, untouched = everything(loaded), loaded.state(namespace)
    squall(loaded, "install", f"--pause-image={PAUSE}", "--lease-seconds=20")
    leave_behind(loaded)
    upgraded = squall(loaded, "install", f"--pause-image={PAUSE}", "--lease-seconds=20")
    assert "configmap/squall-former deleted: a former version had it" in upgraded
    create(loaded, delay(namespace))
    confirmed(loaded, namespace, 2)
    loaded.cut("node2")
    try:
        with pytest.raises(RuntimeError, match="the agent on node2 did not say that its targets"):
            squall(loaded, "uninstall", "--timeout=4")
        said = squall(loaded, "uninstall", "--timeout=4", "--force")
        assert "going on because of --force" in said
    finally:
        loaded.mend("node2")
    wait_until(lambda: everything(loaded) - objects == set(), lambda: everything(loaded) - objects)
    wait_until(lambda: touched(loaded, namespace, untouched) == "", lambda: loaded.state(namespace))


def touched(cluster: Cluster, namespace: str, untouched: Mapping[str, str]) -> str:
    """Compare, but for the journal of the agent that nobody told that its order is gone."""
    journal = "node2 files"
    without = {what: text for what, text in cluster.state(namespace).items() if what != journal}
    return difference({w: t for w, t in untouched.items() if w != journal}, without)


def leave_behind(cluster: Cluster) -> None:
    """Make an object that an earlier version would have had."""
    labels = {"app.kubernetes.io/part-of": "squall", "app.kubernetes.io/managed-by": "squall"}
    metadata = {"name": "squall-former", "namespace": NAMESPACE, "labels": labels}
    create(cluster, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})


@contextmanager
def nothing_leaves(cluster: Cluster) -> Iterator[None]:
    """Count what the control plane's network and the nodes send to anywhere but the cluster."""
    places = [cluster.net, *(cluster.node(name).net for name in cluster.nodes)]
    for place in places:
        run(*inside(place, "nft", "-f", "-"), stdin=WATCH)
    try:
        yield
        counted = [away(place) for place in places]
    finally:
        for place in places:
            run(*inside(place, "nft", "delete", "table", "inet", "outside"))
    assert counted == [0] * len(places)


def away(place: Path) -> int:
    """Read how many packets went away."""
    listed = json.loads(
        run(*inside(place, "nft", "-j", "list", "counter", "inet", "outside", "away"))
    )
    return int(next(one["counter"]["packets"] for one in listed["nftables"] if "counter" in one))
