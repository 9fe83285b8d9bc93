"""Every kind on one target at once, as a user applies them, and taken off in any order."""

import os
import re
from contextlib import suppress
from random import Random, SystemRandom

import pytest

from testbed.installation import Installation, eventually, gone, injected, resource_of
from testbed.stack import NAMES
from testbed.stacked import Stacked

pytestmark = [pytest.mark.host, pytest.mark.timeout(240)]

SEED = int(os.environ.get("SQUALL_SEED") or SystemRandom().randrange(10**6))
"""Draws the orders; a failure tells it."""


@pytest.fixture
async def stacked(tmp_path):
    with Installation(tmp_path / "squall", lease_seconds=30) as up:
        async with Stacked(up, tmp_path / "stack") as stacked:
            yield stacked
    assert "Traceback" not in up.log, up.log


async def test_every_kind_stacks_on_one_target_and_is_peeled_off_in_any_order(stacked):
    draw = Random(SEED)  # noqa: S311  (to be repeated, not to be secret)
    before = stacked.picture()
    await stacked.put_on(*draw.sample(NAMES, len(NAMES)))
    order = draw.sample(NAMES, len(NAMES))
    for at, name in enumerate(order):
        if at == len(order) // 3:
            held = stacked.host.holders()
            stacked.up.kill()
            await stacked.settled()  # by the holders alone
            stacked.up.start()
            await stacked.settled()
            assert stacked.host.holders() == held, (SEED, "found again, and none beside them")
        await stacked.take_off(name)
        await stacked.settled()
    await stacked.as_it_was(before)


ONE_OF_EACH = ("delay", "memory", "slow reads", "slow pages", "failing names")


SOCKET = re.compile(r"[.](sock|files)$")


def kill(**spec):
    selector = {"mode": "all", "selector": {"labelSelectors": {"app": "web"}}}
    return {
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "PodChaos",
        "metadata": {"name": spec["action"], "namespace": "default"},
        "spec": {**selector, **spec},
    }


async def test_what_is_peeled_off_a_frozen_target_is_off_once_it_goes_on(stacked):
    before, freeze = stacked.picture(), kill(action="pod-failure")
    await stacked.put_on(*ONE_OF_EACH)
    async with stacked.up.cluster() as cluster:
        await injected(cluster, await cluster.create(resource_of(freeze), freeze))
        for name in ONE_OF_EACH:
            obj = stacked.stack.experiment(name)
            await cluster.delete(resource_of(obj), "default", obj["metadata"]["name"])
        for name in ("delay", "slow pages", "failing names"):
            await stacked.take_off(name)  # nobody there need move for these to go
        await gone(cluster, freeze)
    for name in ("memory", "slow reads"):
        await stacked.take_off(name)
    await stacked.settled()
    await stacked.as_it_was(before)


async def test_what_is_put_on_a_frozen_target_is_felt_once_it_goes_on(stacked):
    before, freeze = stacked.picture(), kill(action="pod-failure")
    async with stacked.up.cluster() as cluster:
        await injected(cluster, await cluster.create(resource_of(freeze), freeze))
        objects = [stacked.stack.experiment(name) for name in ONE_OF_EACH]
        for obj in objects:
            await cluster.create(resource_of(obj), obj)
        await gone(cluster, freeze)
        for obj in objects:
            await injected(cluster, obj)
        stacked.live |= set(ONE_OF_EACH)
        await stacked.settled()
        await injected(cluster, await cluster.create(resource_of(freeze), freeze))
    stacked.up.kill()
    told = stacked.up.squall("recover", "--all", "--data-dir", str(stacked.up.directory))
    assert "every target is as it was" in told.stdout
    stacked.live.clear()
    await stacked.settled()
    await stacked.as_it_was(before)


async def test_a_target_killed_under_all_of_it_starts_again_and_nothing_is_left(stacked):
    before, strike = stacked.host.holders(), kill(action="container-kill", containerNames=["web"])
    await stacked.put_on(*ONE_OF_EACH)
    killed = stacked.pid
    async with stacked.up.cluster() as cluster:
        await cluster.create(resource_of(strike), strike)

        async def again():
            with suppress(KeyError, OSError):  # between the one and the other
                await stacked.found(cluster)
            return stacked.pid != killed

        await eventually(again, "another container runs")
        await gone(cluster, strike)
        for name in ONE_OF_EACH:
            await stacked.take_off(name)
        await stacked.found(cluster)  # its first process may have been the one that starts it
    await stacked.settled()
    await eventually(lambda: stacked.host.holders() == before, "no holder is left")
    assert not [path for path in stacked.picture()["run directory"].split() if SOCKET.search(path)]
