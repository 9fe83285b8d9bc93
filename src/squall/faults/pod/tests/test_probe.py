import pytest

from squall.faults.pod.injector import PodInjector
from squall.faults.pod.model import PodFault
from squall.faults.pod.probe import PodProbe
from squall.faults.pod.striker import PodStriker
from squall.injection.contract import Live, Sample, Verdict, Way
from squall.injection.laws import Notes

from .test_injector import FAILURE, TARGET, ground


@pytest.fixture
def world():
    return ground().world


async def judged(world, fault, before=None):
    probe = PodProbe(world)
    return probe.judge(fault, before, await probe.sample(TARGET, Live("a/.", fault)))


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("pod-failure", "containers of the pod still run"),
        ("pod-kill", "the pod is still there"),
        ("container-kill", "the same process still runs"),
    ],
)
async def test_what_did_not_happen_is_a_mismatch(world, action, said):
    judgement = await judged(world, PodFault(action=action))
    assert judgement.verdict is Verdict.MISMATCH
    assert judgement.measured == said


@pytest.mark.parametrize("action", ["pod-kill", "container-kill"])
async def test_a_kill_is_proved_by_what_is_gone(world, action):
    fault = PodFault(action=action)
    await PodStriker(world).strike(TARGET, fault)
    assert (await judged(world, fault)).verdict is Verdict.CONFIRMED


async def test_a_failure_is_proved_by_what_stands_still_and_tells_readiness(world):
    await PodInjector(world).converge(TARGET, [Live("a/.", FAILURE)], Notes())
    judgement = await judged(world, FAILURE)
    assert judgement.verdict is Verdict.CONFIRMED
    assert judgement.measured == "the pod stands still; not ready"


async def test_a_cluster_that_is_slow_to_report_does_not_hide_what_stands_still(world):
    sample = Sample(Way.PASSIVE, {"stopped": 1.0, "ready": 1.0})
    judgement = PodProbe(world).judge(FAILURE, None, sample)
    assert judgement.verdict is Verdict.CONFIRMED
    assert judgement.measured.endswith("still called ready")


async def test_a_node_that_has_not_done_it_yet_proves_nothing(world):
    await world.pods.stop(TARGET)
    world.pods.slow = True
    judgement = await judged(world, FAILURE)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.measured == "the pod was told to, and its node has not done it yet"


async def test_what_was_not_read_proves_nothing(world):
    judgement = PodProbe(world).judge(FAILURE, None, Sample(Way.PASSIVE))
    assert judgement.verdict is Verdict.INCONCLUSIVE
