"""`squall controller`: what chooses targets in a cluster, as a process of its own."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from squall.api.metadata import CONTROLLER_NODE
from squall.app.inspection import address_of, health_served, metrics_served
from squall.app.leaders_agent import LeadersAgent, act
from squall.app.policies import policy_of
from squall.app.running import asked_to_stop
from squall.cli.parts import DEFAULT_DATA_DIRECTORY, ControllerSettings
from squall.controller.loop import Controller
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.client import HttpCluster
from squall.kubernetes.connection import Connection
from squall.kubernetes.kubeconfig import chosen
from squall.linux.clock import SystemClock
from squall.telemetry import log_to_stderr
from squall.webhook.renewal import Place
from squall.webhook.serving import Webhook

STATE_SECONDS = 0.1
"""How often a start looks whether everything is listed."""


class ClusterController:
    """One controller of an installation, from start to handing over."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._policy = policy_of(settings.policy)

    async def run(self, ready: Callable[[], None]) -> None:
        """Run until SIGTERM or SIGINT, then leave everything to another controller."""
        settings, stopping = self._settings, asked_to_stop()
        log_to_stderr()
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(self._connected())
            agent = LeadersAgent(
                self._clock, lambda: asyncio.create_task(act(settings, cluster, self._clock))
            )
            controller = Controller(
                cluster,
                self._clock,
                kinds(),
                lease_seconds=settings.lease_seconds,
                namespace=settings.namespace,
                policy=self._policy,
                api_node=CONTROLLER_NODE,
                identity=settings.identity,
                leading=agent.lead,
            )
            webhook = self._admission(cluster) if settings.webhook else None
            if settings.health is not None:

                def missing() -> str:
                    return controller.missing() or (webhook.missing() if webhook else "")

                await stack.enter_async_context(health_served(settings.health, missing))
            if settings.metrics:
                await stack.enter_async_context(
                    metrics_served(settings.metrics, cluster, self._clock)
                )
            # What was made until here lives as long as the process: the collector may skip it.
            gc.freeze()
            async with asyncio.TaskGroup() as group:
                parts = [
                    group.create_task(agent.run()),
                    group.create_task(controller.run()),
                    group.create_task(_tell(controller, ready)),
                ]
                if webhook is not None:
                    parts.append(group.create_task(webhook.serve(*address_of(settings.webhook))))
                await stopping.wait()
                await controller.hand_over()
                for part in parts:
                    part.cancel()

    def _admission(self, cluster: HttpCluster) -> Webhook:
        place = Place(self._settings.namespace, self._settings.service)
        return Webhook(cluster, served_kinds(kinds()), lambda: self._policy, self._clock, place)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[HttpCluster]:
        config = chosen(self._settings.kubeconfig, os.environ, DEFAULT_DATA_DIRECTORY)
        async with HttpCluster(Connection(config)) as cluster:
            yield cluster


async def _tell(controller: Controller, ready: Callable[[], None]) -> None:
    while controller.missing():  # noqa: ASYNC110  (only while it starts)
        await asyncio.sleep(STATE_SECONDS)
    ready()
