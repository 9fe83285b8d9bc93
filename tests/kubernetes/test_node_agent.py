"""`squall agent` on this kernel, told what to do by a real API server."""

import asyncio
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from squall.api.cluster import NODE, NODE_FAULT, POD
from squall.app.places import Places
from squall.controller.loop import Controller
from squall.faults import kinds
from squall.kubernetes.client import HttpCluster
from squall.linux.cgroups import mounts
from squall.linux.clock import SystemClock
from squall.linux.tests.cell import cell
from testbed.installation import eventually, injected, records, resource_of
from testbed.node_agent import NodeAgent
from tests.kubernetes.conftest import new_namespace

pytestmark = [pytest.mark.kubernetes, pytest.mark.host, pytest.mark.timeout(120)]

LEASE_SECONDS = 8.0
HEALED_WITHIN_SECONDS = LEASE_SECONDS + 6
WAITS_ALONE = ("unshare", "--net", "--", "sh", "-c", "ip link set lo up; exec sleep 600")


class Site:
    """One node of an API server without any, with one pod on it."""

    def __init__(self, cluster, namespace, folder, kubeconfig):
        self.cluster, self.namespace = cluster, namespace
        self.agent = NodeAgent(folder, kubeconfig, f"node-{namespace}", namespace, LEASE_SECONDS)
        self.target = None
        self._control = None

    async def lead(self):
        controller = Controller(
            self.cluster, SystemClock(), kinds(), lease_seconds=LEASE_SECONDS,
            namespace=self.namespace, identity="test", registry=CollectorRegistry(),
        )  # fmt: skip
        self._control = asyncio.create_task(controller.run())

    async def resign(self):
        if self._control is not None:
            self._control.cancel()
            await asyncio.gather(self._control, return_exceptions=True)

    async def runs(self, target, name="web", **labels):
        """Show a container of this host as a pod of the node."""
        self.target = target
        meta = {"name": name, "namespace": self.namespace, "labels": {"app": name} | labels}
        spec = {
            "nodeName": self.agent.node_name,
            "containers": [{"name": "app", "image": "none"}],
            "automountServiceAccountToken": False,
        }
        await self.cluster.create(POD, {"metadata": meta, "spec": spec})
        state = {"running": {"startedAt": "2026-01-01T12:00:00Z"}}
        container = {
            "name": "app", "image": "none", "imageID": "none", "ready": True, "restartCount": 0,
            "containerID": f"containerd://{target.container_id}", "state": state,
        }  # fmt: skip
        status = {"phase": "Running", "podIP": "192.0.2.7", "podIPs": [{"ip": "192.0.2.7"}]}
        status["containerStatuses"] = [container]
        status["conditions"] = [{"type": "Ready", "status": "True"}]
        patch = {"status": status}
        await self.cluster.patch(POD, self.namespace, name, patch, subresource="status")

    async def apply(self, kind, name="one", **spec):
        meta = {"name": name, "namespace": self.namespace}
        selector = {"labelSelectors": {"app": "web"}, "namespaces": [self.namespace]}
        experiment = {"kind": kind, "metadata": meta}
        experiment["spec"] = {"mode": "all", "selector": selector} | spec
        await self.cluster.create(resource_of(experiment), experiment)
        return experiment

    async def record(self, experiment):
        meta = experiment["metadata"]
        found = await self.cluster.get(resource_of(experiment), meta["namespace"], meta["name"])
        return next(iter(records(found)), {})

    def tables(self):
        enter = ("nsenter", f"--net=/proc/{self.target.pid}/ns/net", "--", "nft", "list", "tables")
        return subprocess.run(enter, capture_output=True, text=True, check=True).stdout.strip()

    def aside(self):
        place = Places(self.agent.directory).aside
        mounted = mounts(Path("/proc/self/mountinfo").read_text())
        return [Path(mount.point, place) for mount in mounted]

    def standing_aside(self):
        listed = [folder / "cgroup.procs" for folder in self.aside() if folder.is_dir()]
        pids = {pid for procs in listed for pid in procs.read_text().split()}
        return {Path(f"/proc/{pid}/cmdline").read_text().split("\0")[1] for pid in pids}


CUT = {"action": "partition", "direction": "to", "externalTargets": ["192.0.2.9"]}


@pytest.fixture
async def site(real, tmp_path):
    async with HttpCluster.from_kubeconfig(real.kubeconfig) as cluster:
        made = Site(cluster, await new_namespace(cluster), tmp_path / "agent", real.kubeconfig)
        await cluster.create(NODE, {"metadata": {"name": made.agent.node_name}})
        with ExitStack() as stack:
            target = stack.enter_context(cell(command=WAITS_ALONE)).target
            await eventually(lambda: _moved(target.pid), "the target has its own network")
            await made.runs(target)
            await made.lead()
            stack.enter_context(made.agent)
            yield made
        await made.resign()


def _moved(pid):
    own = Path("/proc/self/ns/net").stat().st_ino
    return Path(f"/proc/{pid}/ns/net").stat().st_ino != own


async def test_a_fault_is_injected_and_sigterm_takes_it_back_and_says_so(site):
    cut = await site.apply("NetworkChaos", **CUT)
    await injected(site.cluster, cut)
    assert "squall" in site.tables()
    assert site.agent.stop() == 0
    assert site.tables() == ""

    async def told():
        return (await site.record(cut))["phase"] == "Not Injected/Wait"

    await eventually(told, "the experiment says so")


async def test_a_killed_agent_goes_on_from_its_journal(site):
    cut = await site.apply("NetworkChaos", **CUT)
    await injected(site.cluster, cut)
    site.agent.kill()
    assert "squall" in site.tables()
    site.agent.start()
    assert "squall" in site.tables()
    await site.cluster.delete(resource_of(cut), site.namespace, "one")
    await eventually(lambda: not site.tables(), "the cut is taken back")


async def test_an_agent_that_never_comes_back_leaves_nothing_after_a_lease(site):
    await injected(site.cluster, await site.apply("NetworkChaos", **CUT))
    await injected(site.cluster, await site.apply("PodChaos", "two", action="pod-failure"))
    site.agent.kill()
    await eventually(lambda: not site.tables(), "nothing is left", HEALED_WITHIN_SECONDS)
    log = site.agent.directory / "watcher.log"
    await eventually(lambda: "as it was" in log.read_text(), "the watcher has recovered")


async def test_what_holds_a_fault_stands_in_no_cgroup_of_its_agent(site):
    await injected(site.cluster, await site.apply("NetworkChaos", **CUT))
    # What the agent tries first stands there, too, and ends with the trial.
    await eventually(lambda: site.standing_aside() == {"packets", "watch"}, "the trials' end")
    assert site.agent.stop() == 0
    assert not any(folder.exists() for folder in site.aside())


async def test_a_clean_end_with_nothing_held_leaves_empty_folders(site):
    cut = await site.apply("NetworkChaos", **CUT)
    await injected(site.cluster, cut)
    assert site.agent.stop() == 0
    places = Places(site.agent.directory)
    assert places.journal.exists()  # its NodeFault is still there
    site.agent.start()
    await site.cluster.delete(resource_of(cut), site.namespace, "one")
    await eventually(lambda: not site.tables(), "the cut is taken back")

    async def forgotten():
        # The controller of this site also sees what other tests have left in theirs.
        ordered = await site.cluster.list(NODE_FAULT, site.namespace)
        return all(one["spec"]["experiment"]["namespace"] != site.namespace for one in ordered)

    await eventually(forgotten, "nothing is ordered")
    assert site.agent.stop() == 0
    assert not places.journal.exists()
    assert not places.watcher.exists()
    assert not places.run.exists()
    site.agent.start()
