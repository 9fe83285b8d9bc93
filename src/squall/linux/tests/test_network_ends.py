"""Namespaces whose pods end while somebody acts in them."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from squall.errors import TargetGone
from squall.injection.world.network import Cut, NetworkState, Peers
from squall.injection.world.target import Target
from squall.linux import namespaces
from squall.linux.holder import begun
from squall.linux.packets import PacketsProcess
from squall.linux.tests.conftest import FAR

pytestmark = [pytest.mark.host, pytest.mark.kernel]

CUT = NetworkState(cuts=(Cut("a/.", "out", (Peers(f"{FAR[4]}/32", 0),), ""),))


@pytest.fixture
def later(cables):
    """A pod that took over the network namespace of the target."""
    enter = ("nsenter", f"--net=/proc/{cables.target.pid}/ns/net", "--")
    with subprocess.Popen((*enter, "sleep", "600")) as process:
        inode = namespaces.of(cables.target).inode
        while Path(f"/proc/{process.pid}/ns/net").stat().st_ino != inode:
            assert process.poll() is None
        started = namespaces.started(process.pid)
        yield Target("default/web", "later", "", process.pid, started)
        process.kill()


def kill(target):
    os.kill(target.pid, signal.SIGKILL)
    while namespaces.alive(target):
        pass


async def both_at_once(network, cables, later):
    """Let a later pod get its own process while that of the one before is let go of."""
    await network.apply(cables.target, CUT)
    inode = namespaces.of(cables.target).inode
    first = network._holders._holds[inode].process
    async with network._holders._lock(inode):
        acting = asyncio.create_task(network.apply(later, CUT))
        await asyncio.sleep(0)  # it waits for the lock, first in the row
        kill(cables.target)
        ending = asyncio.create_task(network.state(cables.target))
        await asyncio.sleep(0)
        os.kill(first.pid, signal.SIGKILL)
        await first.gone.wait()
    await acting
    with pytest.raises(TargetGone):
        await ending
    return network._holders._socket(inode)


async def test_the_end_of_one_pod_takes_nothing_from_the_next(network, cables, later):
    await both_at_once(network, cables, later)
    assert await network.state(later) == CUT


async def test_nothing_is_left_when_the_next_one_ends_too(network, cables, later):
    path = await both_at_once(network, cables, later)
    kill(later)
    with pytest.raises(TargetGone):
        await network.state(later)
    assert await PacketsProcess.connect(path) is None
    assert not path.parent.exists()


async def killed(network):
    """End the only process as nobody should."""
    [hold] = network._holders._holds.values()
    os.kill(hold.process.pid, signal.SIGKILL)
    await hold.process.gone.wait()
    return network._holders._run


async def test_the_folder_goes_with_the_last_process_and_what_a_killed_one_left(network, cables):
    peer = cables.peer
    await network.apply(cables.target, CUT)
    folder = await killed(network)
    await network.apply(peer, CUT)
    await network.apply(cables.target, NetworkState())
    assert [path.name for path in begun(folder)] == [f"{namespaces.of(peer).inode}.sock"]
    await network.apply(peer, NetworkState())
    assert not folder.exists()


async def test_ending_all_leaves_no_folder_whatever_ended_them(network, cables):
    await network.apply(cables.target, CUT)
    folder = await killed(network)
    await network.apply(cables.peer, CUT)
    await network.close()
    await network.end_all()
    assert not folder.exists()
    assert await network.state(cables.peer) == NetworkState()
