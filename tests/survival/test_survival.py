"""Kill parts of Squall at random moments; within a lease the host is what it was before."""

import asyncio
import os
import signal
import subprocess
from contextlib import ExitStack, suppress
from random import Random

import pytest
import yaml

from squall.api.cluster import POD, AlreadyExists, ApiError
from squall.linux.processes import Processes
from testbed.havoc import Ending, Victim, rounds
from testbed.installation import (
    Installation,
    eventually,
    gone,
    ready_pod,
    records,
    resource_of,
)
from testbed.traces import Host, Namespace, difference

pytestmark = [pytest.mark.survival, pytest.mark.host, pytest.mark.timeout(90)]

LEASE_SECONDS = 2.0
HEALED_WITHIN_SECONDS = LEASE_SECONDS + 5
GONE_WITHIN_SECONDS = LEASE_SECONDS + 10
SEED = int(os.environ["SQUALL_SEED"])  # set in conftest.py

EXPERIMENTS = {
    "delay": """
        kind: NetworkChaos
        spec: {action: delay, mode: all, selector: {labelSelectors: {app: web}},
               delay: {latency: 30ms}, direction: both,
               target: {mode: all, selector: {labelSelectors: {app: peer}}}}""",
    "loss": """
        kind: NetworkChaos
        spec: {action: loss, mode: all, selector: {labelSelectors: {app: web}},
               loss: {loss: "20"}}""",
    "partition": """
        kind: NetworkChaos
        spec: {action: partition, mode: all, selector: {labelSelectors: {app: web}},
               direction: both, target: {mode: all, selector: {labelSelectors: {app: peer}}}}""",
    "names": """
        kind: DNSChaos
        spec: {action: error, mode: all, selector: {labelSelectors: {app: web}},
               patterns: ["*.example"], delay: 10ms}""",
    "http": """
        kind: HTTPChaos
        spec: {mode: all, selector: {labelSelectors: {app: web}}, target: Request, port: 80,
               delay: 10ms}""",
    "failure": """
        kind: PodChaos
        spec: {action: pod-failure, mode: all, selector: {labelSelectors: {app: web}}}""",
    "files": """
        kind: IOChaos
        spec: {action: latency, mode: all, selector: {labelSelectors: {app: web}},
               delay: 10ms, volumePath: /var/tmp}""",
    "cpu": """
        kind: StressChaos
        spec: {mode: all, selector: {labelSelectors: {app: web}},
               stressors: {cpu: {workers: 1, load: 20}}}""",
    "memory": """
        kind: StressChaos
        spec: {mode: all, selector: {labelSelectors: {app: web}},
               stressors: {memory: {workers: 1, size: 16MB}}}""",
}
PLANS = list(rounds(SEED, sorted(EXPERIMENTS), each=2, blows=5))
TARGETS = ("web", "peer")


def experiment(name, text=""):
    obj = yaml.safe_load(text or EXPERIMENTS[name])
    return obj | {
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "metadata": {"name": name, "namespace": "default"},
    }


class Field:
    """One installation with two targets, and what was on them before."""

    def __init__(self, directory, stack):
        self.up = Installation(directory, lease_seconds=LEASE_SECONDS)
        self.host = Host(directory)
        self._stack = stack
        self.pids, self.held, self.planted, self.foreign = {}, {}, {}, {}

    async def begin(self):
        """Start all, remember what a target looks like untouched, plant foreign rules."""
        self.up.start()
        for name in TARGETS:
            self.up.squall("run", "--name", name, "--label", f"app={name}", "--", "sleep", "1000")
        self.pids = await self.targets()
        for name, pid in self.pids.items():
            self.held[name] = namespace = self._stack.enter_context(Namespace(pid))
            self.pristine = {"devices": namespace.traces()["devices"], "nft": "", "tc filter": ""}
            namespace.plant()
            self.foreign[name] = namespace.foreign()
            self.planted[name] = {**namespace.traces(), **self.host.traces(pid)}

    async def targets(self):
        """Find the process of each target, once it is ready."""
        async with self.up.cluster() as cluster:
            pods = {name: await ready_pod(cluster, name) for name in TARGETS}
        ids = {
            name: pod["status"]["containerStatuses"][0]["containerID"].partition("//")[2]
            for name, pod in pods.items()
        }
        found = await Processes().resolve(ids.values())
        return {name: found[id_][0] for name, id_ in ids.items()}

    async def strike(self, blow):
        """Begin or end an experiment, and kill in the midst of it."""
        with suppress(ApiError):
            async with self.up.cluster() as cluster:
                obj = experiment(blow.begins)
                try:
                    await cluster.create(resource_of(obj), obj)
                except AlreadyExists:
                    await cluster.delete(resource_of(obj), "default", blow.begins)
        await asyncio.sleep(blow.after_seconds)  # the random moment itself
        holders = self.host.holders()
        if blow.victim is Victim.HOLDER and holders:
            with suppress(ProcessLookupError):
                os.kill(holders[int(blow.after_seconds * 1e6) % len(holders)], signal.SIGKILL)
        else:
            self.up.kill()
            self.up.start()

    async def delete_all(self):
        """Delete every experiment; none may hang."""
        async with self.up.cluster() as cluster:
            for name in EXPERIMENTS:
                await gone(cluster, experiment(name), GONE_WITHIN_SECONDS)

    def unhealed(self):
        """Say what is not as it was before, on the targets that are still there."""
        told = []
        for name, namespace in self.held.items():
            try:
                now = dict(namespace.traces())
            except subprocess.CalledProcessError as error:  # a device that was there just now
                return f"{name} is about to change: {error}"
            before = self.planted[name]
            if now["devices"] != before["devices"]:  # its pod is gone, and its device with it
                before = {"nft": before["nft"], "tc filter": ""}
                now = {key: now[key] for key in before}
            with suppress(OSError):  # it has ended
                now |= {k: v for k, v in self.host.traces(self.pids[name]).items() if k in before}
            before = {key: before[key] for key in now}
            told += [f"{name}: {line}" for line in [difference(before, now)] if line]
        return "\n".join(told)

    async def unhealed_anew(self):
        """Say what is on targets that were replaced, beside what every fresh one has."""
        told = []
        try:
            for name, pid in (await self.targets()).items():
                with Namespace(pid) as namespace:
                    if namespace.inode != self.held[name].inode:
                        seen = namespace.traces()
                        told.append(difference(self.pristine, {k: seen[k] for k in self.pristine}))
        except (KeyError, OSError, subprocess.CalledProcessError) as early:
            return f"a target is about to be replaced: {early}"
        return "\n".join(filter(None, told))

    async def healed(self):
        """Wait until the host is what it was."""
        try:
            await eventually(lambda: not self.unhealed(), "healed", HEALED_WITHIN_SECONDS)
        except TimeoutError:
            raise AssertionError(f"left after a lease + 5 s:\n{self.unhealed()}") from None

    async def clean_anew(self):
        """Wait until targets that took the place of others run, with nothing on them."""

        async def clean():
            return not await self.unhealed_anew()

        try:
            await eventually(clean, "clean", HEALED_WITHIN_SECONDS)
        except TimeoutError:
            raise AssertionError(f"on new targets:\n{await self.unhealed_anew()}") from None


@pytest.fixture
async def field(tmp_path):
    with ExitStack() as stack:
        field = Field(tmp_path / "squall", stack)
        try:
            await field.begin()
            yield field
        finally:
            with suppress(Exception):
                field.up.stop()
            field.host.end_all()
            field.host.empty_run_directory()


async def finish(field, ending):
    """Let a round end; all that was begun is taken back, or was never seen to have an end."""
    if ending is Ending.ABANDONED:
        field.up.kill()
        await field.healed()
        field.up.start()
    elif ending is Ending.RESTARTED:
        os.kill(field.pids["web"], signal.SIGKILL)
    elif ending is Ending.REPLACED:
        async with field.up.cluster() as cluster:
            await cluster.delete(POD, "default", "web", grace_seconds=0)
    elif ending in {Ending.OUTAGE, Ending.REBOOT}:
        field.up.kill()
        for pid, _ in field.host.processes():
            if ending is Ending.REBOOT or pid not in field.pids.values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if ending is Ending.REBOOT:
            field.host.empty_run_directory()
        field.up.start()
    await field.delete_all()


@pytest.mark.parametrize("plan", PLANS, ids=[f"{p.number}-{p.ending.name}" for p in PLANS])
async def test_whatever_dies_the_host_is_what_it_was(field, plan):
    for blow in plan.blows:
        await field.strike(blow)
    await finish(field, plan.ending)
    await field.healed()
    await field.clean_anew()
    for name, namespace in field.held.items():
        if plan.ending not in {Ending.REPLACED, Ending.REBOOT}:
            assert namespace.foreign() == field.foreign[name], plan


KILL = """
    kind: PodChaos
    spec: {action: container-kill, mode: all, selector: {labelSelectors: {app: web}},
           containerNames: [web]}"""


async def restarts(cluster):
    pod = await ready_pod(cluster, "web")
    return pod["status"]["containerStatuses"][0]["restartCount"]


async def test_whatever_dies_a_container_is_killed_at_most_once(field):
    draw = Random(f"{SEED} strikes")  # noqa: S311  (to be repeated, not to be secret)
    for number in range(4):
        obj = experiment(f"kill-{number}", KILL)
        async with field.up.cluster() as cluster:
            before = await restarts(cluster)
            await cluster.create(resource_of(obj), obj)
        await asyncio.sleep(draw.uniform(0, 0.1))  # the random moment itself
        field.up.kill()
        field.up.start()
        async with field.up.cluster() as cluster:
            await settled(cluster, obj)
            await gone(cluster, obj, GONE_WITHIN_SECONDS)
            assert await restarts(cluster) - before <= 1


async def settled(cluster, obj):
    """Wait until every record says what came of it."""

    async def told():
        seen = records(await cluster.get(resource_of(obj), "default", obj["metadata"]["name"]))
        return seen and all(r["phase"] == "Injected" or r.get("proof") for r in seen)

    await eventually(told, "every record is settled")


def test_there_are_enough_kills():
    assert sum(len(plan.blows) for plan in PLANS) >= 50


def test_a_seed_repeats_itself():
    assert list(rounds(7, ["a", "b"], each=1, blows=3)) == list(
        rounds(7, ["a", "b"], each=1, blows=3)
    )
