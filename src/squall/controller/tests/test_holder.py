import pytest

from squall.controller.holder import Life, Tenure, ended, life_of
from squall.orchestration.experiments.pods import Container, Pod

MESH = Container("mesh", "containerd://m", True)


def pod(container="containerd://1", *, uid="u1", running=True, name="controller", beside=()):
    containers = (*beside, Container(name, container, running))
    return Pod("squall", "squall-controller-0", uid, containers=containers)


def lease(holder="squall-controller-0", taken="t1", renewed="r1"):
    return {"spec": {"holderIdentity": holder, "acquireTime": taken, "renewTime": renewed}}


@pytest.mark.parametrize(
    ("shown", "life"),
    [
        (pod(), Life("u1", "containerd://1")),
        (pod(name="main"), Life("u1", "containerd://1")),
        (pod(beside=[MESH]), Life("u1", "containerd://1")),
        (pod(running=False), None),
        (pod(running=False, beside=[MESH]), None),
        (Pod("squall", "squall-controller-0"), None),
        (None, None),
    ],
)
def test_a_life_is_one_run_of_the_controller_s_container(shown, life):
    assert life_of(shown) == life


@pytest.mark.parametrize(
    ("shown", "how"),
    [
        (pod(), ""),
        (pod(beside=[MESH]), ""),
        (None, "its pod is gone"),
        (pod(uid="u2"), "there is another pod of its name"),
        (pod(running=False), "its container does not run"),
        (pod(running=False, beside=[MESH]), "its container does not run"),
        (pod("containerd://2"), "its container was started again"),
    ],
)
def test_how_a_life_ends(shown, how):
    assert ended(Life("u1", "containerd://1"), shown) == how


def test_nobody_is_called_dead_who_was_never_seen_alive():
    tenure = Tenure()
    assert not tenure.ended(lease(), None)
    assert not tenure.ended(lease(), pod(running=False))
    assert not tenure.ended(lease(), pod("containerd://2"))
    assert tenure.ended(lease(), pod("containerd://3"))


def test_a_renewal_goes_on_with_the_same_life_and_a_new_tenure_does_not():
    tenure = Tenure()
    assert not tenure.ended(lease(), pod())
    assert not tenure.ended(lease(renewed="r2"), pod())
    assert tenure.ended(lease(renewed="r2"), pod("containerd://2"))
    assert not tenure.ended(lease(taken="t2"), pod("containerd://2"))
    assert not tenure.ended(lease("another"), None)


def test_what_is_still_shown_of_a_former_life_is_not_taken_for_the_new_one():
    tenure = Tenure()
    assert not tenure.ended(lease(), pod())
    assert not tenure.ended(lease(taken="t2"), pod())
    assert not tenure.ended(lease(taken="t2"), pod("containerd://2"))
    assert tenure.ended(lease(taken="t2"), pod("containerd://3"))
