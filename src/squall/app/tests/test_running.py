"""What processes with an agent in them do alike."""

import asyncio
import threading

from squall.app.running import children_without_threads


def test_children_are_waited_for_without_a_thread_for_each():
    async def waited_for():
        children_without_threads()
        child = await asyncio.create_subprocess_exec("sleep", "60")
        threads = threading.active_count()
        child.kill()
        await child.wait()
        return threads

    before = threading.active_count()
    try:
        assert asyncio.run(waited_for()) == before
    finally:
        asyncio.set_event_loop_policy(None)
