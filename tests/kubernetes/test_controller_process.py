"""`squall controller` as processes on a real API server: who leads, and what it costs."""

import json
import time

import pytest
import yaml

from squall.api.cluster import LEASE, NODE, NODE_FAULT, POD, NotFound
from squall.api.crd import definition
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.client import HttpCluster
from testbed.apiserver import running
from testbed.controller import ControllerProcess
from testbed.health import ask
from testbed.installation import eventually
from tests.kubernetes.conftest import new_namespace
from tests.kubernetes.objects import agent_lease

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]

NETWORK = kinds()["NetworkChaos"].resource
NAMES = ("controller-a", "controller-b")


@pytest.fixture
async def api(real):
    async with HttpCluster.from_kubeconfig(real.kubeconfig) as cluster:
        yield cluster


@pytest.fixture
async def pair(real, api, tmp_path):
    """Two controllers of one installation, the first of which leads; and pods in their names."""
    namespace = await new_namespace(api)
    for name in NAMES:
        await show_pod(api, namespace, name)
    first, second = (ControllerProcess(tmp_path, n, namespace, real.kubeconfig) for n in NAMES)
    with first:
        await eventually(lambda: leads(api, first), "the first leads")
        with second:
            yield first, second


async def show_pod(api, namespace, name, node="node-1"):
    """Make a pod as if a kubelet ran it."""
    spec = {
        "nodeName": node,
        "containers": [{"name": "controller", "image": "none"}],
        "automountServiceAccountToken": False,
    }
    meta = {"name": name, "namespace": namespace, "labels": {"app": "web"}}
    await api.create(POD, {"metadata": meta, "spec": spec})
    await show_container(api, namespace, name, {"running": {"startedAt": "2026-01-01T12:00:00Z"}})


async def show_container(api, namespace, name, state, number=1):
    container = {
        "name": "controller", "image": "none", "imageID": "none", "ready": "running" in state,
        "restartCount": number - 1, "containerID": f"containerd://{number:064x}", "state": state,
    }  # fmt: skip
    status = {"phase": "Running", "podIP": "192.0.2.7", "podIPs": [{"ip": "192.0.2.7"}]}
    status["containerStatuses"] = [container]
    await api.patch(POD, namespace, name, {"status": status}, subresource="status")


async def spec_of_lease(api, namespace):
    try:
        return (await api.get(LEASE, namespace, "squall-controller"))["spec"]
    except NotFound:
        return {}


async def leads(api, controller):
    spec = await spec_of_lease(api, controller.namespace)
    return spec.get("holderIdentity") == controller.identity


async def test_sigterm_hands_over_at_once(pair, api):
    first, second = pair
    began = time.monotonic()
    assert first.stop() == 0
    await eventually(lambda: leads(api, second), "the other leads")
    assert time.monotonic() - began < 3
    assert (await spec_of_lease(api, first.namespace))["leaseTransitions"] == 1
    assert not first.socket.exists()


@pytest.mark.parametrize("shown", ["ended", "restarted", "gone"])
async def test_sigkill_is_acted_on_as_soon_as_kubelet_reports_it(pair, api, shown):
    first, second = pair
    first.kill()
    began = time.monotonic()
    terminated = {"terminated": {"exitCode": 137, "reason": "Error"}}
    if shown == "ended":
        await show_container(api, first.namespace, first.identity, terminated)
    elif shown == "restarted":
        state = {"running": {"startedAt": "2026-01-01T11:00:00Z"}}  # by a clock that is behind
        await show_container(api, first.namespace, first.identity, state, number=2)
    else:
        await api.delete(POD, first.namespace, first.identity, grace_seconds=0)
    await eventually(lambda: leads(api, second), "the other leads")
    assert time.monotonic() - began < 2  # of 5 s, most of which kubelet may have


async def test_a_silent_leader_is_waited_for_by_the_clock(real, api, tmp_path):
    namespace = await new_namespace(api)
    first, second = (
        ControllerProcess(tmp_path, name, namespace, real.kubeconfig, lease_seconds=6)
        for name in NAMES
    )
    with first:
        await eventually(lambda: leads(api, first), "the first leads")
        with second:
            began = time.monotonic()
            first.kill()
            await eventually(lambda: leads(api, second), "the other leads")
            assert 2 <= time.monotonic() - began < 6  # 2/3 of the lease after the last renewal


async def test_a_pod_that_kubelet_says_nothing_new_of_keeps_the_lease(pair, api):
    first, second = pair
    await api.create(NODE, {"metadata": {"name": f"node-{first.namespace}"}})
    await show_pod(api, first.namespace, "web-0", f"node-{first.namespace}")
    await api.create(LEASE, agent_lease(first.namespace, f"node-{first.namespace}"))
    await api.patch(POD, first.namespace, first.identity, {"metadata": {"labels": {"a": "b"}}})
    await apply(api, first.namespace)
    await eventually(lambda: assigned(api, first.namespace), "the experiment is carried out")
    assert await leads(api, first)
    assert second.alive


async def test_health_is_told_over_the_socket(pair):
    first, _ = pair
    assert ask(first.socket, ready=True) == (True, "ok")
    first.kill()
    assert not ask(first.socket, ready=False)[0]


async def test_memory(pair):
    assert all(controller.resident <= 90 * 1024 for controller in pair)


async def apply(api, namespace, name="slow", **spec):
    """Cut the pods of a namespace from an address."""
    selector = {"labelSelectors": {"app": "web"}, "namespaces": [namespace]}
    wanted = {"action": "partition", "direction": "to", "externalTargets": ["192.0.2.9"]}
    meta = {"name": name, "namespace": namespace}
    spec = {"mode": "all", "selector": selector} | wanted | spec
    return await api.create(NETWORK, {"metadata": meta, "spec": spec})


async def assigned(api, namespace):
    return await api.list(NODE_FAULT, namespace)


async def test_a_bad_policy_is_refused_by_the_name_of_its_field(real, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump({"mostPercent": 200}))
    process = ControllerProcess(
        tmp_path, "bad", "squall", real.kubeconfig, options=("--policy", str(policy))
    )
    with pytest.raises(RuntimeError, match="mostPercent"):
        process.start()
    assert not process.alive


# What it costs ----------------------------------------------------------------------------


@pytest.fixture
def audited(in_memory):
    folder = in_memory / "audited"
    folder.mkdir()
    definitions = [definition(kind) for kind in served_kinds(kinds())]
    with running(folder, definitions, users=NAMES, audited=True) as server:
        yield server


def requests(server):
    """Requests of controllers so far: user, verb and resource."""
    lines = [json.loads(line) for line in (server.folder / "audit.log").read_text().splitlines()]
    return [
        (line["user"]["username"], line["verb"], line["objectRef"]["resource"])
        for line in lines
        if line["user"]["username"] in NAMES and line["stage"] == "ResponseComplete"
    ]


async def test_standing_by_costs_nothing_and_leading_one_request_for_each_renewal(
    audited, tmp_path
):
    async with HttpCluster.from_kubeconfig(audited.kubeconfig) as api:
        namespace = await new_namespace(api)
        first, second = (
            ControllerProcess(
                tmp_path, name, namespace, audited.kubeconfig_of(name), lease_seconds=3
            )
            for name in NAMES
        )
        with first:
            await eventually(lambda: leads(api, first), "the first leads")
            with second:
                begun = len(requests(audited))
                began = (await spec_of_lease(api, namespace))["renewTime"]

                async def renewed():
                    return (await spec_of_lease(api, namespace))["renewTime"] != began

                await eventually(renewed, "the lease is renewed")
                await eventually(lambda: len(requests(audited)) >= begun + 3, "three renewals")
                made = requests(audited)[begun:]
    assert made[:3] == [(NAMES[0], "patch", "leases")] * 3
