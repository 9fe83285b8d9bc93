"""One write of the controller fails, whichever: nothing is stuck, and nothing is done twice."""

import pytest

from squall.api.cluster import ApiError
from squall.clock import settle
from squall.controller.tests.scene import Scene, until


class Fickle:
    """A cluster that answers some writes with an error, whether they arrived or not."""

    def __init__(self, cluster, first, code, *, arrives):
        self.cluster, self.left, self.code, self.arrives = cluster, first, code, arrives
        self.refused = 0
        self.watch, self.get, self.list = cluster.watch, cluster.get, cluster.list

    async def create(self, *args, **kwargs):
        return await self._do(self.cluster.create, *args, **kwargs)

    async def patch(self, *args, **kwargs):
        return await self._do(self.cluster.patch, *args, **kwargs)

    async def delete(self, *args, **kwargs):
        return await self._do(self.cluster.delete, *args, **kwargs)

    async def _do(self, call, *args, **kwargs):
        self.left -= 1
        if self.left not in {-1, -2}:
            return await call(*args, **kwargs)
        self.refused += 1
        if self.arrives:
            await call(*args, **kwargs)
        raise ApiError(self.code, "Sorry", "not now")


@pytest.fixture
async def scene():
    scene = Scene()
    await scene.node("n1")
    await scene.node("n2")
    await scene.pod("web-0", "n1")
    await scene.pod("web-1", "n2", "c2")
    yield scene
    await scene.close()


@pytest.mark.parametrize("arrives", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("code", [429, 500, 504])
@pytest.mark.parametrize("first", range(2, 30, 2))
async def test_two_writes_that_fail_hold_nothing_up_for_ever(scene, first, code, arrives):
    fickle = Fickle(scene.cluster, first, code, arrives=arrives)
    scene.controller(cluster=fickle)
    await settle()
    both = {"default/web-0", "default/web-1"}
    await scene.apply()
    await until(scene, lambda: scene.hit == both, 30)
    await until(scene, lambda: set(scene.phases().values()) == {"Injected"}, 30)
    await scene.pause("slow")
    await until(scene, lambda: scene.hit == set(), 30)
    await scene.pause("slow", value=None)
    await until(scene, lambda: scene.hit == both, 30)
    await scene.delete()
    await until(scene, lambda: not scene.there() and not scene.node_faults(), 30)
    assert scene.hit == set()
    assert scene.agents["n1"].most == 1
    assert fickle.refused
