import asyncio

import pytest

from squall.api.units import Size
from squall.clock import settle
from squall.faults.stress.injector import StressInjector
from squall.faults.stress.judgement import judge
from squall.faults.stress.model import CpuStressor, MemoryStressor, StressFault
from squall.faults.stress.probe import StressProbe
from squall.injection.contract import Live, Verdict
from squall.injection.laws import Notes

from .test_injector import HALF, OWN, TARGET, ground

MEMORY = StressFault(memory=MemoryStressor(workers=1, size=Size(bytes=300_000_000)))


@pytest.fixture
def world():
    return ground().world


async def sampled(world, fault):
    """Sample while time passes as it would."""
    task = asyncio.create_task(StressProbe(world).sample(TARGET, Live("a/.", fault)))
    await settle()
    await world.clock.advance(1)
    return await task


async def judged(world, fault):
    before = await sampled(world, fault)
    await StressInjector(world).converge(TARGET, [Live("a/.", fault)], Notes())
    return StressProbe(world).judge(fault, before, await sampled(world, fault))


async def test_load_that_is_felt_is_confirmed_with_its_number(world):
    judgement = await judged(world, HALF)
    assert judgement.verdict is Verdict.CONFIRMED
    assert judgement.asked == "cpu 50 % of one processor"
    assert judgement.measured == "cpu 50.0 % of one processor, 60.0 % in the container"


@pytest.mark.parametrize(
    ("grip", "verdict"), [(0.91, "Confirmed"), (0.8, "Mismatch"), (1.2, "Mismatch")]
)
async def test_load_within_a_tenth_is_confirmed(world, grip, verdict):
    world.stressors.grip = grip
    assert (await judged(world, HALF)).verdict == verdict


async def test_a_container_at_its_limit_cannot_be_loaded_more(world):
    world.stressors.cpu_limit, world.stressors.grip = 0.5, 0.4
    judgement = await judged(world, StressFault(cpu=CpuStressor(workers=1)))
    assert judgement.verdict is Verdict.CONFIRMED
    assert judgement.measured.endswith("its limit is 50 %")


async def test_a_busy_host_neither_proves_nor_refutes(world):
    world.stressors.grip, world.stressors.waits = 0.4, 0.35
    judgement = await judged(world, HALF)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.measured.endswith("35.0 % were waited for: others keep this host busy")


async def test_memory_that_is_held_is_confirmed(world):
    judgement = await judged(world, MEMORY)
    assert judgement.verdict is Verdict.CONFIRMED
    assert judgement.asked == "memory 300 MB"
    assert judgement.measured == "memory 300 MB, 350 MB in the container"


async def test_what_the_load_itself_takes_is_not_counted_as_memory_held(world):
    world.stressors.own_bytes = 20_000_000
    both = HALF.model_copy(update={"memory": MEMORY.memory})
    judgement = await judged(world, both)
    assert judgement.verdict is Verdict.CONFIRMED
    assert "memory 320 MB" in judgement.measured


async def test_too_little_memory_is_a_mismatch(world):
    world.stressors.grip = 0.5
    assert (await judged(world, MEMORY)).verdict is Verdict.MISMATCH


async def test_memory_that_ran_out_is_told(world):
    probe, live = StressProbe(world), Live("a/.", MEMORY)
    before = await sampled(world, MEMORY)
    await StressInjector(world).converge(TARGET, [live], Notes())
    await world.stressors.stop(TARGET, "a/.:memory")
    world.stressors.oom_kills = 2
    judgement = probe.judge(MEMORY, before, await sampled(world, MEMORY))
    assert judgement.verdict is Verdict.CONFIRMED
    assert judgement.measured == "memory ran out at 1000 MB: 2 processes were killed"


async def test_what_ran_out_before_the_fault_proves_nothing(world):
    world.stressors.oom_kills, world.stressors.grip = 3, 0.5
    assert (await judged(world, MEMORY)).verdict is Verdict.MISMATCH


async def test_a_stressor_that_is_not_there_is_a_mismatch(world):
    for fault in (HALF, MEMORY):
        judgement = StressProbe(world).judge(fault, None, await sampled(world, fault))
        assert judgement.verdict is Verdict.MISMATCH


async def test_the_worst_part_counts(world):
    fault = StressFault(cpu=HALF.cpu, memory=MEMORY.memory)
    await judged(world, fault)
    await world.stressors.stop(TARGET, "a/.:memory")
    judgement = StressProbe(world).judge(fault, None, await sampled(world, fault))
    assert judgement.verdict is Verdict.MISMATCH
    assert judgement.asked == "cpu 50 % of one processor, memory 300 MB"


async def test_load_outside_of_the_container_is_a_mismatch(world):
    probe = StressProbe(world)
    await StressInjector(world).converge(TARGET, [Live("a/.", HALF)], Notes())
    sample = await sampled(world, HALF)
    values = {**sample.values, "cgroup_cpu_percent": 10.0}
    judgement = probe.judge(HALF, None, type(sample)(sample.way, values))
    assert judgement.verdict is Verdict.MISMATCH
    assert "not in the container's cgroup" in judgement.measured


async def test_without_a_controller_nothing_is_pretended(world):
    world.stressors.confined = False
    assert (await judged(world, HALF)).verdict is Verdict.INCONCLUSIVE


async def test_arguments_of_ones_own_are_measured_and_not_judged(world):
    judgement = await judged(world, OWN)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.asked == "stress-ng --io 2"
    assert judgement.measured == "cpu 0.0 % of one processor, memory 0 MB"


@pytest.mark.parametrize(
    ("held", "growth", "verdict"),
    [
        (120e6, 50e6, Verdict.INCONCLUSIVE),
        (120e6, 1e5, Verdict.MISMATCH),
        (400e6, 50e6, Verdict.MISMATCH),
        (295e6, 50e6, Verdict.CONFIRMED),
    ],
)
def test_memory_that_is_still_being_filled_proves_nothing_yet(held, growth, verdict):
    during = {
        "confined": 1.0,
        "memory_limit_bytes": 1e9,
        "cgroup_memory_bytes": held + 5e6,
        "stressor_memory_bytes": held,
        "stressor_memory_growth_bytes": growth,
    }
    judgement = judge(MEMORY, {}, during)
    assert judgement.verdict is verdict
    assert ("still being filled" in judgement.measured) is (verdict is Verdict.INCONCLUSIVE)
