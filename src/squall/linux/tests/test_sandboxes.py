"""Containers of ours on this very kernel."""

import secrets
import shutil
import sys
from pathlib import Path

import pytest

from squall.linux.sandboxes import LinuxSandboxes, Places
from squall.node.sandboxes import Order, PodName

pytestmark = pytest.mark.host

PROGRAM = shutil.which("squall-node", path=Path(sys.executable).parent) or "squall-node"


@pytest.fixture
async def sandboxes(tmp_path):
    ours = LinuxSandboxes(places(tmp_path), PROGRAM)
    await ours.up()
    yield ours
    await ours.down()


def places(tmp_path):
    mark = f"squall-{secrets.token_hex(4)}"
    return Places(mark, tmp_path / mark, tmp_path / "logs")


def order(pod, *command, **environment):
    return Order(secrets.token_hex(32), pod, "uid-1", command, environment)


WEB, DB = PodName("default", "web"), PodName("default", "db")


async def test_a_container_runs_with_its_own_name_and_network(sandboxes):
    addresses = await sandboxes.attach(WEB)
    asked = order(WEB, "sh", "-c", "hostname; hostname -I; echo $COLOUR", COLOUR="blue")
    await sandboxes.start(asked)
    ended = await sandboxes.ended(asked.id)
    wrote = sandboxes.log_path(asked.id).read_text().split()
    assert ended.status == 0
    assert wrote == ["web", *addresses, "blue"]
