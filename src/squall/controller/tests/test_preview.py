import pytest

from squall.clock import settle
from squall.controller.preview import preview
from squall.controller.tests.scene import KINDS, NETWORK, Scene, experiment
from squall.errors import InvalidFault


@pytest.fixture
async def scene():
    scene = Scene()
    await scene.node("n1")
    for number in range(20):
        await scene.pod(f"web-{number}", container=f"c{number}")
    yield scene
    await scene.close()


def manifest(**spec):
    return experiment("slow", **spec) | {"kind": "NetworkChaos"}


def ids(found):
    return {choice.id for choice in found.selection.chosen}


@pytest.mark.parametrize(("mode", "value"), [("one", ""), ("fixed", "5"), ("fixed-percent", "35")])
@pytest.mark.parametrize("seed", [0, 7, 2**40])
async def test_a_run_with_the_seed_hits_exactly_what_was_previewed(scene, mode, value, seed):
    spec = {"mode": mode, "value": value, "seed": seed}
    found = await preview(scene.cluster, KINDS, manifest(**spec), new_seed=99)
    scene.controller()
    await settle()
    await scene.apply(**spec)
    await settle()
    assert scene.hit == ids(found)
    assert found.repeatable


async def test_without_a_seed_the_preview_names_one_that_makes_it_true(scene):
    found = await preview(scene.cluster, KINDS, manifest(mode="fixed", value="5"), new_seed=99)
    assert "to hit exactly these, set spec.seed: 99" in found.lines()
    scene.controller()
    await settle()
    await scene.apply(mode="fixed", value="5", seed=99)
    await settle()
    assert scene.hit == ids(found)


async def test_a_run_can_be_replayed_from_its_object(scene):
    scene.controller()
    await settle()
    await scene.apply(mode="fixed", value="5")
    await settle()
    obj = scene.cluster.objects[NETWORK, "default", "slow"]
    found = await preview(scene.cluster, KINDS, obj, new_seed=1)
    assert ids(found) == scene.hit


async def test_a_preview_says_who_is_left_out_and_changes_nothing(scene):
    await scene.pod("far", node="n9", container="x")
    before = len(scene.cluster.calls)
    found = await preview(scene.cluster, KINDS, manifest(), new_seed=1)
    skipped = "skipped: . default/far is on node 'n9', which is not known here"
    assert found.lines()[-1] == skipped
    assert {verb for verb, _, _ in scene.cluster.calls[before:]} == {"list"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kind": "NoChaos"}, "'NoChaos' is not served; there are .*NetworkChaos, PodChaos"),
        (manifest(mode="most"), "mode"),
        (manifest(selector={"fieldSelectors": {"spec.color": "red"}}), "spec.color"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_its_reason(scene, wrong, says):
    with pytest.raises(InvalidFault, match=says):
        await preview(scene.cluster, KINDS, wrong, new_seed=1)
