import pytest

from squall.errors import InvalidFault, TargetGone
from squall.faults.pod.model import PodFault
from squall.faults.pod.striker import PodStriker

from .test_injector import TARGET, ground


@pytest.fixture
def world():
    return ground().world


async def test_pod_kill_deletes_the_pod_with_its_grace(world):
    await PodStriker(world).strike(TARGET, PodFault(action="pod-kill", grace_period=7))
    assert world.pods.deleted == {TARGET.pod_uid: 7}
    assert await world.containers.alive(TARGET)


async def test_container_kill_ends_the_container_and_leaves_the_pod(world):
    await PodStriker(world).strike(TARGET, PodFault(action="container-kill"))
    assert not await world.containers.alive(TARGET)
    assert await world.pods.exists(TARGET)


@pytest.mark.parametrize("action", ["pod-kill", "container-kill"])
async def test_what_somebody_else_has_killed_is_gone(world, action):
    striker = PodStriker(world)
    await striker.strike(TARGET, PodFault(action=action))
    with pytest.raises(TargetGone):
        await striker.strike(TARGET, PodFault(action=action))


async def test_a_state_cannot_be_struck(world):
    with pytest.raises(InvalidFault, match="is a state"):
        await PodStriker(world).strike(TARGET, PodFault(action="pod-failure"))
