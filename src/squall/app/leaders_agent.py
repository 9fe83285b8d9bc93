"""The agent of the node that stands for the controller: faults by the API alone.

It runs while its controller leads. When that ends it is cut short and restores nothing: the next
leader's goes on from what the API shows, so that its journal need not last.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from squall.api.cluster import ApiError
from squall.api.metadata import CONTROLLER_NODE
from squall.app.places import boot_id
from squall.app.policies import policy_of
from squall.app.world import api_world
from squall.cli.parts import ControllerSettings
from squall.clock import Clock
from squall.faults import kinds
from squall.kubernetes.client import HttpCluster
from squall.kubernetes.paused_pods import PausedPods
from squall.node.agent import Agent
from squall.node.journal import Journal
from squall.telemetry import logger

RETRY_SECONDS = 5.0
_IN_MEMORY = Path("/dev/shm")  # noqa: S108  (the one place that a container can always write to)


class LeadersAgent:
    """Starts and stops an agent as leadership comes and goes.

    Args:
        clock: time.
        act: one life of the agent; cancelled when leadership ends.
    """

    def __init__(self, clock: Clock, act: Callable[[], asyncio.Task[None]]) -> None:
        self._clock, self._act = clock, act
        self._leads = asyncio.Event()
        self._acting: asyncio.Task[None] | None = None

    def lead(self, leads: bool) -> None:
        """Take in that this controller leads now, or does not any more; the latter acts at once."""
        if leads:
            self._leads.set()
            return
        self._leads.clear()
        if self._acting is not None:
            self._acting.cancel()

    async def run(self) -> None:
        """Act whenever this controller leads, until cancelled.

        Raises:
            Exception: a bug in the agent; who runs the controller starts it again.
        """
        while True:
            await self._leads.wait()
            self._acting = self._act()
            try:
                await asyncio.wait({self._acting})
            finally:
                self._acting.cancel()
            if not self._acting.cancelled() and (failure := self._acting.exception()):
                if not _refused(failure):
                    raise failure
                logger(__name__).warning("faults by the API alone must wait: %s", failure)
                await self._clock.sleep(RETRY_SECONDS)


async def act(settings: ControllerSettings, cluster: HttpCluster, clock: Clock) -> None:
    """Live one life of the agent that has no node, from an empty journal.

    Raises:
        ExceptionGroup: the API refuses what it needs (`ApiError`), or it has a bug.
    """
    folder = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    pods = PausedPods(
        cluster,
        settings.pause_image,
        policy_of(settings.policy).target_namespace,
        cluster.pod_last_seen,
    )
    with (
        tempfile.TemporaryDirectory(prefix="squall-", dir=folder) as place,
        closing(Journal(Path(place) / "journal.db", boot_id())) as journal,
    ):
        agent = Agent(
            cluster,
            clock,
            kinds(),
            api_world(clock, pods),
            None,
            journal,
            node_name=CONTROLLER_NODE,
            lease_seconds=settings.lease_seconds,
            namespace=settings.namespace,
        )
        async with asyncio.TaskGroup() as group:
            following = group.create_task(pods.follow())
            await agent.run()
            following.cancel()


def _refused(failure: BaseException) -> bool:
    """Is it nothing but the API's answer?"""
    if isinstance(failure, BaseExceptionGroup):
        return all(_refused(one) for one in failure.exceptions)
    return isinstance(failure, ApiError)
