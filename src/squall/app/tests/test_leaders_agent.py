import asyncio

import pytest

from squall.api.cluster import ApiError
from squall.app.leaders_agent import RETRY_SECONDS, LeadersAgent
from squall.clock import FakeClock, settle


class Lives:
    """Counts lives, and how each ended."""

    def __init__(self):
        self.begun, self.cut, self.fails = 0, 0, None

    async def live(self):
        self.begun += 1
        if self.fails:
            raise self.fails
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cut += 1
            raise


@pytest.fixture
async def lives():
    return Lives()


@pytest.fixture
async def clock():
    return FakeClock()


@pytest.fixture
async def agent(lives, clock):
    return LeadersAgent(clock, lambda: asyncio.create_task(lives.live()))


@pytest.fixture(autouse=True)
async def running(agent):
    running = asyncio.create_task(agent.run())
    yield running
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_it_acts_only_while_its_controller_leads(agent, lives):
    await settle()
    assert lives.begun == 0
    agent.lead(True)
    await settle()
    assert (lives.begun, lives.cut) == (1, 0)
    agent.lead(False)
    await settle()
    assert (lives.begun, lives.cut) == (1, 1)
    agent.lead(True)
    await settle()
    assert (lives.begun, lives.cut) == (2, 1)


async def test_leadership_lost_and_won_in_one_breath_is_a_new_life(agent, lives):
    agent.lead(True)
    await settle()
    agent.lead(False)
    agent.lead(True)
    await settle()
    assert (lives.begun, lives.cut) == (2, 1)


async def test_it_ends_with_its_controller(agent, lives, running):
    agent.lead(True)
    await settle()
    running.cancel()
    await settle()
    assert lives.cut == 1


@pytest.mark.parametrize("nested", [False, True])
async def test_what_the_api_refuses_is_asked_for_again(agent, lives, clock, nested):
    refusal = ApiError(403, "Forbidden", "nodefaults is forbidden")
    lives.fails = ExceptionGroup("agent", [refusal]) if nested else refusal
    agent.lead(True)
    await settle()
    lives.fails = None
    await clock.advance(RETRY_SECONDS - 1)
    assert lives.begun == 1
    await clock.advance(1)
    assert lives.begun == 2


async def test_a_bug_is_not_hidden(agent, lives, running):
    lives.fails = ExceptionGroup("agent", [ZeroDivisionError()])
    agent.lead(True)
    await settle()
    assert running.done()
    with pytest.raises(ExceptionGroup):
        running.result()


async def test_leadership_lost_while_waiting_begins_no_life(agent, lives, clock):
    lives.fails = ApiError(403, "Forbidden", "nodefaults is forbidden")
    agent.lead(True)
    await settle()
    agent.lead(False)
    await clock.advance(10 * RETRY_SECONDS)
    assert lives.begun == 1
