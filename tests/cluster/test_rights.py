"""Nobody but the controller orders faults, and nobody but a node's own agent reports on them."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from squall.api.cluster import LEASE, NODE_FAULT, ApiError, NotFound, Object, Resource
from squall.api.metadata import CONTROLLER_NODE
from squall.faults import kinds
from squall.kubernetes.client import HttpCluster
from testbed.apiserver import ApiServer, missing, running, write_kubeconfig
from testbed.cluster.waiting import until
from tests.cluster.charts import NAMESPACE, as_list, is_hook, rendered
from tests.kubernetes.objects import node_fault

pytestmark = pytest.mark.kubernetes

TENANT = "tenant"


class Caller:
    """Somebody with a token, and kubectl."""

    def __init__(self, server: ApiServer, folder: Path, token: str) -> None:
        self._server = replace(server, token=token, kubeconfig=folder / f"{hash(token):x}")
        write_kubeconfig(self._server)

    def create(self, obj: object) -> str:
        return self._server.run("create", "-f", "-", stdin=json.dumps(obj))

    def report(self, name: str) -> None:
        self.write_status(NODE_FAULT, NAMESPACE, name, {"observedGeneration": 7})

    def write_status(self, kind: Resource, namespace: str, name: str, status: Object) -> None:
        """As Squall does; kubectl would read the subresource first, which takes a right more."""
        asyncio.run(self._write_status(kind, namespace, name, {"status": status}))

    async def _write_status(
        self, kind: Resource, namespace: str, name: str, change: Object
    ) -> None:
        async with HttpCluster.from_kubeconfig(self._server.kubeconfig) as cluster:
            try:
                await cluster.patch(kind, namespace, name, change, subresource="status")
            except ApiError as refused:
                raise RuntimeError(str(refused)) from refused

    def says(self, name: str, holder: str) -> None:
        """Write a Lease as agents do, who may not read it."""
        asyncio.run(self._says(name, holder))

    async def _says(self, name: str, holder: str) -> None:
        lease: Object = {"spec": {"holderIdentity": holder}}
        async with HttpCluster.from_kubeconfig(self._server.kubeconfig) as cluster:
            try:
                try:
                    await cluster.patch(LEASE, NAMESPACE, name, lease)
                except NotFound:
                    lease["metadata"] = {"name": name, "namespace": NAMESPACE}
                    await cluster.create(LEASE, lease)
            except ApiError as refused:
                raise RuntimeError(str(refused)) from refused

    def leaves(self, name: str) -> None:
        """Delete a Lease as agents do that end."""
        asyncio.run(self._leaves(name))

    async def _leaves(self, name: str) -> None:
        async with HttpCluster.from_kubeconfig(self._server.kubeconfig) as cluster:
            try:
                await cluster.delete(LEASE, NAMESPACE, name)
            except ApiError as refused:
                raise RuntimeError(str(refused)) from refused

    def change(self, name: str, patch: object) -> str:
        how = ["--type=merge", f"--patch={json.dumps(patch)}"]
        return self._server.run("patch", "nodefault", name, f"--namespace={NAMESPACE}", *how)

    def delete(self, name: str) -> str:
        return self._server.run("delete", "nodefault", name, f"--namespace={NAMESPACE}")

    def run(self, *arguments: str) -> str:
        return self._server.run(*arguments)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    if lacking := missing():
        pytest.fail(f"a real API server needs {', '.join(lacking)}")
    with running(tmp_path_factory.mktemp("rights")) as server:
        for namespace in (NAMESPACE, TENANT):
            server.run("create", "namespace", namespace)
        install(server)
        for node in ("node-a", "node-b"):
            server.run("create", "-f", "-", stdin=json.dumps(node_of(node)))
            server.run("create", "-f", "-", stdin=json.dumps(pod_of(f"agent-{node}", node)))
        yield server


def install(server: ApiServer) -> None:
    """Put the chart's objects in: definitions first, and wait until the policy acts."""
    objects = [one for one in rendered() if not is_hook(one)]
    definitions = [one for one in objects if one["kind"] == "CustomResourceDefinition"]
    server.run("create", "-f", "-", stdin=as_list(definitions))
    established = ("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    # As long as a definition has no conditions at all, kubectl fails in place of waiting.
    until("definitions", lambda: server.run(*established))
    # Nobody answers for the webhook here.
    others = [one for one in objects if one not in definitions and "Webhook" not in one["kind"]]
    server.run("create", "-f", "-", stdin=as_list(others))
    deadline = time.monotonic() + 60
    while True:
        try:
            server.run("create", "--dry-run=server", "-f", "-", stdin=order("probe", "node-a"))
        except RuntimeError as refused:
            if "may not create" in str(refused):
                return
            if "not found" not in str(refused):  # its kind is not served yet
                raise
        assert time.monotonic() < deadline, "the admission policy does not act"
        time.sleep(0.1)


def order(name: str, node: str, namespace: str = NAMESPACE) -> str:
    return json.dumps(fault(name, node, namespace))


def fault(name: str, node: str, namespace: str = NAMESPACE) -> dict[str, object]:
    kind = {"apiVersion": "squall.dev/v1alpha1", "kind": "NodeFault"}
    return {**kind, **node_fault(namespace, name, node)}


def node_of(name: str) -> object:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def pod_of(name: str, node: str) -> object:
    spec = {
        "nodeName": node,
        "serviceAccountName": "squall-agent",
        "containers": [{"name": "agent", "image": "squall:0"}],
    }
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def token_of(server: ApiServer, account: str, *bound: str, namespace: str = NAMESPACE) -> str:
    return server.run("create", "token", account, f"--namespace={namespace}", *bound).strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("callers")


@pytest.fixture(scope="module")
def controller(server: ApiServer, folder: Path) -> Caller:
    return Caller(server, folder, token_of(server, "squall-controller"))


@pytest.fixture(scope="module")
def agent_of_a(server: ApiServer, folder: Path) -> Caller:
    """A token as the kubelet of node-a mounts it into its agent."""
    bound = ("--bound-object-kind=Pod", "--bound-object-name=agent-node-a")
    return Caller(server, folder, token_of(server, "squall-agent", *bound))


@pytest.fixture(scope="module")
def agent_of_no_node(server: ApiServer, folder: Path) -> Caller:
    return Caller(server, folder, token_of(server, "squall-agent"))


@pytest.fixture(scope="module")
def tenant(server: ApiServer, folder: Path) -> Caller:
    """Somebody who has every right in a namespace of their own."""
    server.run("create", "serviceaccount", "owner", f"--namespace={TENANT}")
    for role, where in (("cluster-admin", TENANT), ("view", NAMESPACE)):
        binding = ["create", "rolebinding", f"owner-{role}", f"--clusterrole={role}"]
        server.run(*binding, f"--serviceaccount={TENANT}:owner", f"--namespace={where}")
    return Caller(server, folder, token_of(server, "owner", namespace=TENANT))


@pytest.fixture(scope="module")
def careless(server: ApiServer, folder: Path) -> Caller:
    """Somebody whom a wildcard gave rights over every kind in every namespace, but `administer`."""
    server.run("create", "serviceaccount", "careless", f"--namespace={TENANT}")
    verbs = "get,list,watch,create,update,patch,delete"
    rights = [f"--verb={verbs}", "--resource=*.*"]
    server.run("create", "clusterrole", "careless", *rights)
    binding = ["create", "clusterrolebinding", "careless", "--clusterrole=careless"]
    server.run(*binding, f"--serviceaccount={TENANT}:careless")
    return Caller(server, folder, token_of(server, "careless", namespace=TENANT))


@pytest.fixture
def on_a(controller: Caller, request: pytest.FixtureRequest) -> str:
    return ordered(controller, request, "node-a")


@pytest.fixture
def on_b(controller: Caller, request: pytest.FixtureRequest) -> str:
    return ordered(controller, request, "node-b")


def ordered(controller: Caller, request: pytest.FixtureRequest, node: str) -> str:
    name = f"{request.node.name.replace('_', '-').replace('[', '-').strip(']')}-{node}"[:63]
    controller.create(fault(name, node))
    return name


def test_the_controller_orders_changes_and_takes_back(controller: Caller, on_b: str) -> None:
    controller.change(on_b, {"spec": {"desiredPhase": "Stop"}})
    controller.delete(on_b)


def test_the_controller_reports_on_what_it_brings_about_itself(controller: Caller) -> None:
    controller.create(fault("by-api", CONTROLLER_NODE))
    controller.report("by-api")


def test_the_controller_reports_for_no_node(controller: Caller, on_a: str) -> None:
    with pytest.raises(RuntimeError, match="may not write the status of a NodeFault of node-a"):
        controller.report(on_a)


def test_the_controller_orders_nothing_outside_of_its_namespace(
    controller: Caller, careless: Caller
) -> None:
    with pytest.raises(RuntimeError, match=r"[Ff]orbidden"):
        controller.create(fault("astray", "node-a", TENANT))
    with pytest.raises(RuntimeError, match="belong into namespace squall alone, not into tenant"):
        careless.create(fault("astray", "node-a", TENANT))


def test_an_agent_reports_on_its_own_node(agent_of_a: Caller, on_a: str) -> None:
    agent_of_a.report(on_a)


def test_a_stolen_agent_token_reports_on_no_other_node(agent_of_a: Caller, on_b: str) -> None:
    said = "squall-agent on node node-a may not write the status of a NodeFault of node-b"
    with pytest.raises(RuntimeError, match=said):
        agent_of_a.report(on_b)


def test_an_agent_token_of_no_node_reports_on_none(agent_of_no_node: Caller, on_a: str) -> None:
    with pytest.raises(RuntimeError, match="may not write the status of a NodeFault of node-a"):
        agent_of_no_node.report(on_a)


@pytest.mark.parametrize("node", ["node-a", "node-b"])
def test_a_stolen_agent_token_orders_nothing(agent_of_a: Caller, node: str) -> None:
    with pytest.raises(RuntimeError, match=r"[Ff]orbidden"):
        agent_of_a.create(fault("stolen", node))


def test_a_stolen_agent_token_changes_no_order(agent_of_a: Caller, on_a: str) -> None:
    with pytest.raises(RuntimeError, match=r"[Ff]orbidden"):
        agent_of_a.change(on_a, {"spec": {"nodeName": "node-b"}})
    with pytest.raises(RuntimeError, match=r"[Ff]orbidden"):
        agent_of_a.delete(on_a)


def test_a_stolen_agent_token_reads_no_secret_and_touches_no_pod(agent_of_a: Caller) -> None:
    listed = agent_of_a.run("auth", "can-i", "--list", f"--namespace={NAMESPACE}", "--no-headers")
    verbs = {line.split()[0]: line[line.rindex("[") :] for line in listed.splitlines()}
    assert verbs["pods"] == "[get list watch]"
    assert verbs["nodefaults.squall.dev/status"] == "[patch]"
    writes = {
        what
        for what, may in verbs.items()
        if {"create", "patch", "update", "delete"} & set(may.strip("[]").split())
    }
    reviews = {what for what in writes if "review" in what}
    assert writes - reviews == {"nodefaults.squall.dev/status"}
    assert not {what for what in verbs if what.startswith("secrets")}


@pytest.mark.parametrize("namespace", [TENANT, NAMESPACE])
def test_the_owner_of_a_namespace_orders_nothing(tenant: Caller, namespace: str) -> None:
    with pytest.raises(RuntimeError, match=r"[Ff]orbidden"):
        tenant.create(fault("mine", "node-b", namespace))


def test_a_wildcard_orders_nothing(careless: Caller, on_a: str) -> None:
    said = "system:serviceaccount:tenant:careless may not create a NodeFault: only the controller"
    with pytest.raises(RuntimeError, match=said):
        careless.create(fault("wild", "node-b"))
    with pytest.raises(RuntimeError, match="may not update a NodeFault"):
        careless.change(on_a, {"spec": {"nodeName": "node-b"}})
    with pytest.raises(RuntimeError, match="may not delete a NodeFault"):
        careless.delete(on_a)
    with pytest.raises(RuntimeError, match="may not write the status"):
        careless.report(on_a)


def test_an_administrator_takes_away_but_orders_nothing(server: ApiServer, on_a: str) -> None:
    with pytest.raises(RuntimeError, match="may not create a NodeFault"):
        server.run("create", "-f", "-", stdin=order("by-hand", "node-a"))
    how = (f"--namespace={NAMESPACE}", "--type=merge", '--patch={"spec":{"nodeName":"node-b"}}')
    with pytest.raises(RuntimeError, match="may not update a NodeFault"):
        server.run("patch", "nodefault", on_a, *how)
    server.run("delete", "nodefault", on_a, f"--namespace={NAMESPACE}")


def test_the_controller_reaches_one_secret(controller: Caller) -> None:
    where = f"--namespace={NAMESPACE}"
    assert controller.run("get", "secret", "squall-webhook", where)
    for words in (["get", "secret", "another"], ["create", "secret", "generic", "more"]):
        with pytest.raises(RuntimeError, match=r"[Ff]orbidden"):
            controller.run(*words, where)


def test_an_agent_says_of_its_own_node_alone_that_it_runs_there(
    server: ApiServer, agent_of_a: Caller, agent_of_no_node: Caller
) -> None:
    agent_of_a.says("squall-agent-node-a", "node-a")
    agent_of_a.says("squall-agent-node-a", "node-a")
    other = {"metadata": {"name": "squall-agent-node-b", "namespace": NAMESPACE}}
    kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    spec = {"spec": {"holderIdentity": "node-b"}}
    server.run("create", "-f", "-", stdin=json.dumps(kind | other | spec))
    attempts = [
        (agent_of_a, "squall-agent-node-b", "node-b"),
        (agent_of_a, "squall-agent-node-b", "node-a"),
        (agent_of_a, "squall-agent-node-c", "node-c"),
        (agent_of_a, "squall-agent-node-c", "node-a"),
        (agent_of_a, "squall-controller", "node-a"),
        (agent_of_no_node, "squall-agent-node-a", "node-a"),
    ]
    for caller, name, holder in attempts:
        with pytest.raises(RuntimeError, match="speaks for its own node alone"):
            caller.says(name, holder)
    with pytest.raises(RuntimeError, match="speaks for its own node alone"):
        agent_of_a.leaves("squall-agent-node-b")
    agent_of_a.leaves("squall-agent-node-a")
    agent_of_a.says("squall-agent-node-a", "node-a")


def test_nobody_but_the_controller_says_who_is_a_target(
    controller: Caller, tenant: Caller, careless: Caller
) -> None:
    kind = {"apiVersion": "chaos-mesh.org/v1alpha1", "kind": "PodChaos"}
    spec = {"action": "pod-kill", "mode": "all", "selector": {}}
    metadata = {"name": "own", "namespace": TENANT}
    elsewhere = {"id": "default/web", "selectorKey": ".", "phase": "Injected"}
    records = [elsewhere | {"injectedCount": 1, "recoveredCount": 0}]
    status = {"experiment": {"containerRecords": records}}
    tenant.create({**kind, "metadata": metadata, "spec": spec, "status": status})
    how = ("podchaos", "own", f"--namespace={TENANT}")
    assert not tenant.run("get", *how, "--output=jsonpath={.status}")
    resource = kinds()["PodChaos"].resource
    for caller in (tenant, careless):
        with pytest.raises(RuntimeError, match="may not write the status of experiment own"):
            caller.write_status(resource, TENANT, "own", status)
    tenant.run("annotate", *how, "more=said")
    controller.write_status(resource, TENANT, "own", status)
    tenant.run("delete", *how)
