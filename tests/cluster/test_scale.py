"""Many nodes and pods: what the control plane writes, and how large it gets.

A real API server, controller and agents; nodes and pods are objects alone. How long it takes is
`bench/scale.py`'s to say, on a machine that has nothing else to do.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from squall.api.crd import definition
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.client import HttpCluster
from squall.orchestration.experiments.records import MOST_DETAILED
from testbed import simulated_nodes as simulated
from testbed.apiserver import missing, running
from testbed.kubernetes.build import built_folder
from testbed.load import Load, delay, partition

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

NODES, PODS = 20, 1200
MEBIBYTE = 1024 * 1024
MOST_REQUESTS = 40
"""For forty targets on two nodes, from creation to the end."""


@pytest.fixture
async def load() -> AsyncIterator[Load]:
    if (lacking := missing()) or not built_folder().is_dir():
        pytest.skip(f"a real API server needs {lacking or 'python -m testbed.kubernetes'}")
    users = (simulated.CONTROLLER, simulated.AGENTS)
    definitions = [definition(kind) for kind in served_kinds(kinds())]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-", dir="/dev/shm"))
        server = stack.enter_context(running(Path(folder), definitions, users=users, audited=True))
        async with HttpCluster.from_kubeconfig(server.kubeconfig) as cluster:
            await simulated.write_namespaces(cluster, ["squall", "load", "few"])
            await simulated.write_nodes(cluster, NODES)
            each = dict.fromkeys(range(NODES), PODS // NODES)
            await simulated.write_pods(cluster, "load", each, {"app": "web"})
            await simulated.write_pods(cluster, "few", {0: 21, 1: 20}, {"app": "web"})
            stack.enter_context(simulated.controller(server, "one"))
            stack.enter_context(simulated.agents(server, NODES))
            load = Load(server, cluster)
            await load.ready(NODES)
            yield load


async def test_what_many_targets_cost(load: Load) -> None:
    """In one scene, since it takes most of the time to write it."""
    everywhere = delay("all", {"app": "web"})
    load.audit.skip()
    _, obj = await load.inject(everywhere)
    records = obj["status"]["experiment"]["containerRecords"]
    assert len(records) == PODS > MOST_DETAILED
    assert not any(record.get("events") or record.get("proof") for record in records)
    assert len(orjson.dumps(obj)) / PODS * 6000 < 1.5 * MEBIBYTE
    assert {len(one["spec"]["targets"]) for one in await load.node_faults()} == {PODS // NODES}
    await load.delete(everywhere)
    asked = await load.settled()
    assert sum(one.writes for one in asked) < 2 * PODS / 4
    assert await load.node_faults() == []

    two = partition("few", "few")
    load.audit.skip()
    await load.inject(two)
    asked = await load.settled()
    await load.delete(two)
    asked += await load.settled()
    assert 0 < len(asked) <= MOST_REQUESTS
    assert await load.node_faults() == []

    several = [delay(f"many-{n}", {"part": str(n)}, most=3) for n in range(20)]
    await load.inject_all(several)
    await load.delete_all(several)
    await load.settled()
    assert await load.node_faults() == []
