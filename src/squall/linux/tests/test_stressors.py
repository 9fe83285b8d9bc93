import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from squall.api.units import Size
from squall.errors import TargetGone
from squall.faults import kinds
from squall.injection.contract import Live, Verdict
from squall.injection.kind import load
from squall.injection.laws import Notes
from squall.injection.world import World
from squall.injection.world.stressors import Stressor
from squall.linux import cgroups
from squall.linux.clock import SystemClock
from squall.linux.containers import LinuxContainers
from squall.linux.stressors import LinuxStressors, _runs

from .cell import SPIN, alive, cell

pytestmark = [pytest.mark.host, pytest.mark.kernel]

CLOCK = SystemClock()
KIND = kinds()["StressChaos"]
HALF = {"cpu": {"workers": 1, "load": 50}}
LIMIT = 256 * 1024 * 1024


@pytest.fixture
def container():
    with cell() as made:
        yield made


@pytest.fixture
def world():
    return World(CLOCK, None, LinuxContainers(), None, LinuxStressors(CLOCK))


def live(source="a/.", **fault):
    return Live(source, KIND.fault.model_validate(fault))


def members(container):
    return set(cgroups.members(container.cgroups[0])) - {
        process.pid for process in container.processes
    }


async def judged(world, container, one):
    """Sample, inject, wait a moment for stress-ng to settle, sample again."""
    probe, injector = load(KIND.probe)(world), load(KIND.injector)(world)
    before = await probe.sample(container.target, one)
    await injector.converge(container.target, [one], Notes())
    for _ in range(12):  # memory fills slowly where other work shares the processors
        judgement = probe.judge(one.fault, before, await probe.sample(container.target, one))
        if judgement.verdict is Verdict.CONFIRMED:
            break
    return judgement


async def test_half_a_processor_is_half_a_processor(world, container):
    await load(KIND.injector)(world).converge(container.target, [live(**HALF)], Notes())
    await settled(world, container)
    first = await world.stressors.usage(container.target)
    await CLOCK.sleep(2)
    last = await world.stressors.usage(container.target)
    percent = 100 * (last.cpu_seconds - first.cpu_seconds) / (last.at - first.at)
    assert percent == pytest.approx(50, abs=3)


async def settled(world, container):
    """Wait until the worker of stress-ng runs."""
    async with asyncio.timeout(5):
        while (await world.stressors.usage(container.target)).cpu_seconds < 0.1:
            await CLOCK.sleep(0.02)


async def test_load_is_confirmed_beside_a_target_that_works_itself(world):
    with cell(command=SPIN) as made:
        made.limit_cpus(1.6)
        judgement = await judged(world, made, live(**HALF))
    assert judgement.verdict is Verdict.CONFIRMED
    assert judgement.measured.startswith("cpu ")


async def test_seventy_percent_of_the_limit_is_held(world, container):
    container.limit_memory(LIMIT)
    judgement = await judged(world, container, live(memory={"workers": 2, "size": "70%"}))
    assert judgement.verdict is Verdict.CONFIRMED
    # Confirmed within a tenth; the rest is filled while we look.
    async with asyncio.timeout(10):
        while (held := await held_percent(world, container)) < 67:
            await CLOCK.sleep(0.05)
    assert held == pytest.approx(70, abs=3)


async def held_percent(world, container):
    return 100 * (await world.stressors.usage(container.target)).memory_bytes / LIMIT


async def test_memory_that_runs_out_is_told_and_stress_ng_stays_down(world, container):
    container.limit_memory(LIMIT // 4)
    judgement = await judged(world, container, live(memory={"workers": 1, "size": "1GB"}))
    assert judgement.verdict is Verdict.CONFIRMED
    assert "memory ran out at 67 MB" in judgement.measured
    await gone(container)
    assert alive(container.target.pid)


async def gone(container):
    async with asyncio.timeout(5):
        while members(container):
            await CLOCK.sleep(0.02)


async def test_two_experiments_stack_and_peel_off_without_a_trace(world, container):
    injector, both = load(KIND.injector)(world), [live(**HALF), live("b/.", **HALF)]
    await injector.converge(container.target, both, Notes())
    runs = {one.name for one in await world.stressors.running(container.target)}
    assert runs == {"a/.:cpu", "b/.:cpu"}
    await injector.converge(container.target, both[1:], Notes())
    (left,) = await world.stressors.running(container.target)
    assert left.name == "b/.:cpu"
    await injector.converge(container.target, [], Notes())
    assert members(container) == set()


async def test_a_fresh_agent_finds_what_runs(world, container):
    await world.stressors.start(container.target, Stressor("x", ("--cpu", "1"), cpu_percent=12.5))
    (found,) = await LinuxStressors(CLOCK).running(container.target)
    assert found == Stressor("x", ("--cpu", "1"), cpu_percent=12.5)


async def test_stress_ng_has_no_rights_and_is_in_every_cgroup(world, container):
    await world.stressors.start(container.target, Stressor("x", ("--cpu", "1"), oom_score_adj=7))
    (run,) = _runs(container.target)
    assert all(run.pid in cgroups.members(path) for path in container.cgroups)
    status = read(run.pid, "status")
    assert "Uid:\t65534" in status
    assert "CapEff:\t0000000000000000" in status
    assert read(run.pid, "oom_score_adj").strip() == "7"


def read(pid, name):
    return Path(f"/proc/{pid}/{name}").read_text()


@pytest.mark.parametrize("victim", ["holder", "pid"])
async def test_whoever_is_killed_nobody_is_left(world, container, victim):
    await world.stressors.start(container.target, Stressor("x", ("--cpu", "2"), cpu_percent=50))
    (run,) = _runs(container.target)
    os.kill(getattr(run, victim), signal.SIGKILL)
    await gone(container)


async def test_stressors_end_with_their_container(world, container):
    await world.stressors.start(container.target, Stressor("x", ("--cpu", "1"), cpu_percent=50))
    container.processes[0].kill()
    container.processes[0].wait()
    await gone(container)
    with pytest.raises(TargetGone):
        await world.stressors.running(container.target)


async def test_a_stressor_of_somebody_else_is_left_alone(world, container):
    foreign = container.add("stress-ng", "--cpu", "1", "--cpu-load", "1", "--quiet")
    assert list(await world.stressors.running(container.target)) == []
    await load(KIND.injector)(world).converge(container.target, [], Notes())
    assert alive(foreign)


async def test_arguments_that_stress_ng_refuses_leave_nothing_behind(world, container):
    fault = live(arguments=["--no-such-option"])
    await load(KIND.injector)(world).converge(container.target, [fault], Notes())
    await gone(container)


def test_a_share_of_the_limit_is_read_from_the_wire():
    assert live(memory={"workers": 1, "size": "70%"}).fault.memory.size == Size(percent=70)


def test_an_agent_that_may_not_see_what_runs_says_so_instead_of_starting_it_again(container):
    # stress-ng runs as nobody, so even root may not read its environment without a right.
    nobody = ("setpriv", "--reuid", "65534", "--clear-groups", "--")
    container.add(*nobody, "stress-ng", "--vm", "1", "--vm-bytes", "1m", "--temp-path", "/tmp")
    look = (
        "from squall.injection.world.target import Target; import squall.linux.stressors as s;"
        f"s._runs({container.target!r})"
    )
    bound = ("setpriv", "--bounding-set", "-all,+sys_admin", "--inh-caps", "-all")
    command = [*bound, "--", sys.executable, "-c", look]
    for _ in range(20):  # until it is stress-ng, and nobody
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            break
    assert "grant CAP_SYS_PTRACE" in done.stderr
