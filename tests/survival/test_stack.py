"""Every kind on one target, and everything of ours killed at once, at a random moment."""

import asyncio
import os
import signal
from contextlib import suppress
from random import Random

import pytest

from testbed.installation import Installation
from testbed.stack import NAMES
from testbed.stacked import Stacked

pytestmark = [pytest.mark.survival, pytest.mark.host, pytest.mark.timeout(240)]

SEED = int(os.environ["SQUALL_SEED"])  # set in conftest.py
LEASE_SECONDS = 10.0


@pytest.fixture
async def stacked(tmp_path):
    with Installation(tmp_path / "squall", lease_seconds=LEASE_SECONDS) as up:
        async with Stacked(up, tmp_path / "stack") as stacked:
            yield stacked


def kill_all(stacked, *spared):
    """Kill agent, watcher and holders, as a shortage of memory would; targets live on."""
    stacked.up.kill()
    for pid, command in stacked.host.processes():
        if pid not in spared and " sandbox " not in command and "stacked_program" not in command:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_a_stack_is_felt_again_once_and_is_gone_when_asked(stacked):
    draw = Random(f"{SEED} stack")  # noqa: S311  (to be repeated, not to be secret)
    before = stacked.picture()
    begun = asyncio.create_task(stacked.put_on(*draw.sample(NAMES, len(NAMES))))
    await asyncio.sleep(draw.uniform(0, 4))  # the random moment itself
    begun.cancel()
    with suppress(asyncio.CancelledError, OSError):
        await begun
    kill_all(stacked)
    stacked.up.start()
    await stacked.put_on(*NAMES)
    kill_all(stacked)
    stacked.up.start()
    await stacked.settled()
    for name in draw.sample(NAMES, len(NAMES)):
        await stacked.take_off(name)
    await stacked.settled()
    await stacked.as_it_was(before)
