"""The leading controller dies: another one leads, and faults do not notice."""

import logging
import time

import pytest

from tests.cluster.survival.blows import kill, leader, pods
from tests.cluster.survival.scene import PATIENCE, Scene

LOG = logging.getLogger(__name__)
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

LEADS_WITHIN = 5.0


def takeover(scene: Scene, old: str) -> float:
    """Wait until another controller leads; returns for how many seconds."""
    began = time.monotonic()
    (other,) = set(pods(scene.cluster, "controller")) - {old}
    where = ("lease/squall-controller", "--namespace=squall")
    named = f"--for=jsonpath={{.spec.holderIdentity}}={other}"
    scene.cluster.kubectl("wait", *where, named, f"--timeout={PATIENCE:.0f}s")
    return time.monotonic() - began


def test_another_leads_when_the_leader_dies(scene: Scene) -> None:
    scene.inject()
    acting = scene.state()
    old = leader(scene.cluster)
    kill(scene.cluster, old)
    seconds = takeover(scene, old)
    LOG.info("another led after %.1f s", seconds)
    assert seconds <= LEADS_WITHIN
    assert not scene.changed(acting)
    assert scene.injected()
