import asyncio
import os
import secrets
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from squall.errors import TargetGone, Unsupported
from squall.injection.world.target import Target
from squall.linux.cgroups import UNIFIED
from squall.linux.containers import MARK, LinuxContainers, _of_pod

from .cell import SPIN, cell, spent, state

pytestmark = [pytest.mark.host, pytest.mark.kernel]

MEANS = {"freezer": ("freezer",), "cgroup v2": (UNIFIED,), "signals": ("cpuacct",)}


@pytest.fixture(params=MEANS)
def container(request):
    with cell(*MEANS[request.param], command=SPIN) as made:
        made.add(*SPIN)
        yield made


def marks(container):
    return [name for path in container.cgroups for name in os.listxattr(path) if name == MARK]


def stands_still(container):
    before = [spent(process.pid) for process in container.processes]
    # 50 ms of a spinning process are five clock ticks.
    signal.sigtimedwait([], 0.05)
    return before == [spent(process.pid) for process in container.processes]


def goes_on(container):
    """A busy machine may leave a process without the processor for a while."""
    return any(not stands_still(container) for _ in range(100))


async def test_a_frozen_pod_stands_still_and_goes_on_where_it_stood(container):
    containers = LinuxContainers()
    assert not await containers.frozen(container.target)
    await containers.freeze(container.target)
    await containers.freeze(container.target)
    assert await containers.frozen(container.target)
    assert stands_still(container)
    await containers.thaw(container.target)
    assert not await containers.frozen(container.target)
    assert marks(container) == []
    assert goes_on(container)


async def test_thawing_what_we_did_not_freeze_changes_nothing(container):
    await LinuxContainers().thaw(container.target)
    assert goes_on(container)


async def test_a_freeze_that_was_cut_off_by_a_crash_is_taken_back(container):
    os.setxattr(container.cgroups[0], MARK, b"" if "cpuacct" in str(container.cgroups) else b"ours")
    await LinuxContainers().thaw(container.target)
    assert marks(container) == []


@pytest.mark.parametrize(
    ("hierarchy", "switch", "stop"),
    [("freezer", "freezer.state", "FROZEN"), (UNIFIED, "cgroup.freeze", "1")],
)
async def test_somebody_elses_freeze_outlives_ours(hierarchy, switch, stop):
    containers = LinuxContainers()
    with cell(hierarchy, command=SPIN) as made:
        path = made.cgroups[0] / switch
        path.write_text(stop)
        assert not await containers.frozen(made.target)
        await containers.thaw(made.target)
        await containers.freeze(made.target)
        assert await containers.frozen(made.target)
        await containers.thaw(made.target)
        assert not await containers.frozen(made.target)
        assert path.read_text().strip() == stop
        assert stands_still(made)


async def test_a_freeze_becomes_ours_when_the_other_is_lifted():
    containers = LinuxContainers()
    with cell("freezer", command=SPIN) as made:
        path = made.cgroups[0] / "freezer.state"
        path.write_text("FROZEN")
        await containers.freeze(made.target)
        path.write_text("THAWED")
        assert not await containers.frozen(made.target)
        await containers.freeze(made.target)
        await containers.thaw(made.target)
        assert path.read_text().strip() == "THAWED"


async def test_a_process_that_somebody_stopped_before_stays_stopped():
    containers = LinuxContainers()
    with cell("cpuacct", command=SPIN) as made:
        other = made.add(*SPIN)
        os.kill(other, signal.SIGSTOP)
        while state(other) != "T":
            signal.sigtimedwait([], 0.001)
        await containers.freeze(made.target)
        await containers.thaw(made.target)
        assert state(other) == "T"
        assert state(made.target.pid) == "R"


async def test_a_kill_ends_the_container_and_hits_no_other():
    containers = LinuxContainers()
    with cell() as made:
        later = replace(made.target, started=made.target.started + 1)
        assert not await containers.alive(later)
        with pytest.raises(TargetGone):
            await containers.kill(later)
        assert await containers.alive(made.target)
        await containers.kill(made.target)
        made.processes[0].wait()
        assert not await containers.alive(made.target)
        with pytest.raises(TargetGone):
            await containers.freeze(made.target)


@pytest.mark.parametrize(
    ("path", "pod"),
    [
        ("kubepods/besteffort/pod1a-2b/{id}", "kubepods/besteffort/pod1a-2b"),
        (
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1a_2b.slice/cri-{id}.scope",
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1a_2b.slice",
        ),
        ("docker/{id}", "docker/{id}"),
        ("squall-0011/{id}", "squall-0011/{id}"),
    ],
)
def test_a_pod_is_frozen_as_a_whole_and_never_more(path, pod):
    id_ = secrets.token_hex(32)
    root = Path("/sys/fs/cgroup")
    target = Target("d/web", "1a-2b", id_, 1, 1)
    assert _of_pod(target, root / path.format(id=id_)) == root / pod.format(id=id_)


async def test_a_container_without_a_cgroup_of_its_own_is_refused():
    # It would share one with anybody: with this test, here.
    with cell("cpuacct") as made:
        stranger = replace(made.target, container_id=secrets.token_hex(32))
        with pytest.raises(Unsupported, match="no cgroup of its own"):
            await LinuxContainers().freeze(stranger)


def test_an_agent_does_not_freeze_itself():
    with cell("freezer") as made:
        procs, back = made.cgroups[0] / "cgroup.procs", Path("/sys/fs/cgroup/freezer/cgroup.procs")
        procs.write_text(str(os.getpid()))
        try:
            with pytest.raises(Unsupported, match="this agent itself"):
                asyncio.run(LinuxContainers().freeze(made.target))
        finally:
            back.write_text(str(os.getpid()))
