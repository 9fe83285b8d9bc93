"""Installing into a real API server and removing again; no node, so nothing ever gets ready."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from squall.api.cluster import HALT, Cluster
from squall.api.metadata import RECORDS_FINALIZER
from squall.controller.loop import Controller
from squall.errors import TryAgain
from squall.faults import kinds
from squall.installation.install import Installer
from squall.installation.manifests import as_yaml, objects
from squall.installation.progress import Lines
from squall.installation.settings import Settings, policy_of
from squall.installation.uninstall import Uninstaller
from squall.kubernetes.client import HttpCluster
from squall.linux.clock import SystemClock
from testbed.apiserver import ApiServer, missing, running
from testbed.kubernetes.build import built_folder
from tests.kubernetes.controller_manager import controller_manager

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(180)]

SQUALL = Path(__file__).parents[2] / ".venv/bin/squall"
NETWORK_CHAOS = kinds()["NetworkChaos"].resource
DELAY = {
    "metadata": {"name": "slow", "namespace": "default", "finalizers": [RECORDS_FINALIZER]},
    "spec": {
        "action": "delay",
        "mode": "all",
        "selector": {"labelSelectors": {"app": "web"}},
        "delay": {"latency": "100ms"},
    },
}
PASSING = ("events", "events.events.k8s.io", "leases.coordination.k8s.io", "componentstatuses")
"""What Kubernetes itself writes all the time."""


@pytest.fixture(scope="module")
def bare(in_memory: Path) -> Iterator[ApiServer]:
    """An API server that serves none of our kinds."""
    if lacking := missing():
        pytest.fail(f"a real API server needs {', '.join(lacking)}")
    if not built_folder().is_dir():
        pytest.fail("kube-apiserver is not built yet; run `python -m testbed.kubernetes`")
    folder = in_memory / "bare"
    folder.mkdir()
    with ExitStack() as ends:
        server = ends.enter_context(running(folder))
        ends.enter_context(controller_manager(server, folder))
        yield server


@pytest.fixture
def before(bare: ApiServer) -> set[str]:
    return inventory(bare)


@pytest.fixture
async def api(bare: ApiServer, before: set[str]):
    """The API; whatever a failed test leaves in it is removed."""
    async with HttpCluster.from_kubeconfig(bare.kubeconfig) as cluster:
        yield cluster
        await remover(cluster).uninstall(keep_definitions=False, timeout_seconds=60, force=True)


def inventory(server: ApiServer) -> set[str]:
    """Name every object there is, of every kind."""
    kinds = server.run("api-resources", "--verbs=list", "-o=name").split()
    lasting = ",".join(kind for kind in kinds if kind not in PASSING)
    listed = json.loads(server.run("get", lasting, "--all-namespaces", "-o=json"))
    return {
        f"{o['apiVersion']} {o['kind']} {o['metadata'].get('namespace')}/{o['metadata']['name']}"
        for o in listed["items"]
    }


def squall(server: ApiServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [SQUALL, *arguments, "--kubeconfig", server.kubeconfig]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def remover(cluster: Cluster, lines: Lines | None = None) -> Uninstaller:
    return Uninstaller(cluster, SystemClock(), lines or Lines(), "squall")


async def install(cluster: Cluster) -> Lines:
    lines = Lines()
    installer = Installer(cluster, SystemClock(), lines)
    await installer.apply(objects(Settings()), timeout_seconds=30)
    return lines


def without_webhooks(server: ApiServer) -> None:
    """Nobody answers them here, where no pod runs."""
    for kind in ("validatingwebhookconfiguration", "mutatingwebhookconfiguration"):
        server.run("delete", kind, "--all")


@pytest.mark.parametrize("target", ["", "shop"], ids=["cluster", "namespaced"])
def test_what_a_dry_run_prints_the_server_would_take(bare: ApiServer, target: str):
    # Objects in a namespace can only be checked where it is.
    policy = policy_of("default", target_namespace=target)
    wanted = [
        o
        for o in objects(Settings(namespace="default", policy=policy))
        if o["metadata"].get("namespace") in (None, "default")
    ]
    printed = as_yaml(wanted)
    said = bare.run(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f=-", stdin=printed
    )
    assert len(said.splitlines()) == len(wanted)


def test_a_dry_run_needs_no_api():
    command = [SQUALL, "install", "--dry-run", "--kubeconfig", "/nonexistent"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == as_yaml(objects(Settings(policy=policy_of("squall"))))


def test_what_never_gets_ready_is_told_and_a_second_run_changes_nothing(bare: ApiServer, api):
    first = squall(bare, "install", "--timeout", "3")
    assert first.returncode == 75
    assert "deployment.apps/squall-controller created" in first.stdout
    assert "0 of 2 pods are ready" in first.stderr
    assert "pod squall-controller-" in first.stderr
    again = squall(bare, "install", "--timeout", "1")
    applied = [line for line in again.stdout.splitlines() if "/" in line.split(" ")[0]]
    assert {line.split(" ")[-1] for line in applied if " pods " not in line} == {"unchanged"}


def test_what_is_installed_otherwise_is_configured(bare: ApiServer, api):
    squall(bare, "install", "--timeout", "3")
    again = squall(bare, "install", "--timeout", "3", "--set", "policy.mostPercent=50")
    assert "configmap/squall-policy configured" in again.stdout
    assert "deployment.apps/squall-controller configured" in again.stdout  # it reads it at start
    assert "serviceaccount/squall-agent unchanged" in again.stdout


def test_what_a_former_version_had_goes_and_nothing_else(bare: ApiServer, api):
    squall(bare, "install", "--timeout", "3")
    ours = "app.kubernetes.io/part-of=squall,app.kubernetes.io/managed-by=squall"
    for kind, name, where in (
        ("configmap", "squall-former", "--namespace=squall"),
        ("serviceaccount", "theirs", "--namespace=squall"),
        ("configmap", "squall-elsewhere", "--namespace=default"),
    ):
        bare.run("create", kind, name, where)
        if name != "theirs":
            bare.run("label", kind, name, where, *ours.split(","))
    bare.run("create", "clusterrole", "squall-former", "--verb=get", "--resource=pods")
    bare.run("label", "clusterrole", "squall-former", *ours.split(","))
    there = inventory(bare)
    again = squall(bare, "install", "--timeout", "3")
    try:
        assert "configmap/squall-former deleted: a former version had it" in again.stdout
        assert {line.rpartition("/")[2] for line in there - inventory(bare)} == {"squall-former"}
    finally:
        bare.run("delete", "configmap", "squall-elsewhere")


async def test_an_uninstall_leaves_what_was_there_before(bare: ApiServer, api, before: set[str]):
    await install(api)
    assert inventory(bare) > before
    async with asyncio.timeout(60):
        await remover(api).uninstall(keep_definitions=False, timeout_seconds=30)
    assert inventory(bare) == before


async def test_a_namespace_that_was_there_before_stays_with_all_that_is_not_ours(
    bare: ApiServer, api
):
    bare.run("create", "namespace", "squall")
    bare.run("create", "configmap", "theirs", "--namespace=squall")
    try:
        there = inventory(bare)
        lines = await install(api)
        assert "namespace/squall was there before; it is kept as it is" in lines.lines
        await remover(api).uninstall(keep_definitions=False, timeout_seconds=30)
        assert inventory(bare) == there
    finally:
        bare.run("delete", "namespace", "squall")


async def test_definitions_stay_where_that_is_asked(bare: ApiServer, api):
    await install(api)
    await remover(api).uninstall(keep_definitions=True, timeout_seconds=30)
    assert "networkchaos.chaos-mesh.org" in bare.run("get", "crd", "-o=name")


def test_definitions_of_somebody_else_are_refused_unless_adopted(bare: ApiServer, api):
    crd = next(o for o in objects(Settings()) if o["metadata"]["name"].startswith("networkc"))
    del crd["metadata"]["labels"]
    bare.run("create", "-f=-", stdin=json.dumps(crd))
    refused = squall(bare, "install", "--timeout", "3")
    assert refused.returncode == 2
    assert "networkchaos.chaos-mesh.org of somebody else" in refused.stderr
    assert "--adopt-crds" in refused.stderr
    assert refused.stdout == ""
    assert "squall" not in bare.run("get", "namespaces", "-o=name")
    adopted = squall(bare, "install", "--timeout", "3", "--adopt-crds")
    assert "customresourcedefinition.apiextensions.k8s.io/networkchaos" in adopted.stdout


async def test_experiments_are_deleted_and_released_by_the_controller_first(bare: ApiServer, api):
    await install(api)
    without_webhooks(bare)
    await api.create(NETWORK_CHAOS, DELAY)
    controller = Controller(api, SystemClock(), kinds(), lease_seconds=6, identity="test")
    acting, lines = asyncio.create_task(controller.run()), Lines()
    try:
        await remover(api, lines).heal(timeout_seconds=30)
    finally:
        acting.cancel()
        with suppress(asyncio.CancelledError):
            await acting
    assert await api.list(NETWORK_CHAOS) == []
    assert await api.list(HALT) == []
    assert lines.lines[0] == "halted: every agent takes its faults back and refuses new ones"
    assert lines.lines[-1] == "every experiment is gone"


async def test_with_no_controller_it_stops_and_goes_on_only_by_force(
    bare: ApiServer, api, before: set[str]
):
    await install(api)
    without_webhooks(bare)
    await api.create(NETWORK_CHAOS, DELAY)
    with pytest.raises(TryAgain, match=r"there is still 1 experiment\. Is a controller running"):
        await remover(api).uninstall(keep_definitions=False, timeout_seconds=1)
    assert len(await api.list(HALT)) == 1
    lines = Lines()
    uninstaller = remover(api, lines)
    await uninstaller.uninstall(keep_definitions=False, timeout_seconds=20, force=True)
    assert "letting go of 1 experiment because of --force" in lines.lines
    assert inventory(bare) == before


def test_what_helm_keeps_is_left_to_helm(bare: ApiServer, api):
    squall(bare, "install", "--timeout", "3")
    label = "app.kubernetes.io/managed-by=Helm"
    deployment = ["deployment", "squall-controller", "--namespace=squall"]
    bare.run("label", "--overwrite", *deployment, label)
    for verb in ("install", "uninstall"):
        refused = squall(bare, verb)
        assert refused.returncode == 3
        assert "helm uninstall squall --namespace squall" in refused.stderr
    bare.run("label", "--overwrite", *deployment, "app.kubernetes.io/managed-by=squall")
