"""`squall controller`: what chooses targets in a cluster, as a process of its own."""

import asyncio
import gc
import os
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from squall.api.cluster import Cluster
from squall.api.metadata import CONTROLLER_NODE
from squall.app.inspection import address_of, health_served
from squall.app.leaders_agent import LeadersAgent, act
from squall.app.metrics_page import metrics_served
from squall.app.policies import policy_of
from squall.app.running import asked_to_stop
from squall.cli.parts import DEFAULT_DATA_DIRECTORY, ControllerSettings
from squall.controller.loop import Controller
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.client import HttpCluster
from squall.kubernetes.connection import Connection
from squall.kubernetes.server import chosen
from squall.linux.clock import SystemClock
from squall.telemetry import log_to_stderr
from squall.webhook.renewal import Place
from squall.webhook.serving import Webhook

LINGERS_SECONDS = 3.0
"""How long a stopped replica still answers API servers, which learn late that it is leaving."""
LOOK_SECONDS = 0.1
"""How often a start looks whether everything is there."""


class ClusterController:
    """One controller of an installation, from start to handing over.

    Raises:
        InvalidFault: the policy is none.
        ValueError: an address is none.
    """

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._policy = policy_of(settings.policy)
        self._address = address_of(settings.webhook) if settings.webhook else None

    async def run(self, ready: Callable[[], None]) -> None:
        """Run until SIGTERM or SIGINT, then leave everything to another controller."""
        log_to_stderr()
        settings, stopping = self._settings, asked_to_stop()
        async with AsyncExitStack() as stack:
            config = chosen(settings.kubeconfig, os.environ, DEFAULT_DATA_DIRECTORY)
            cluster = await stack.enter_async_context(HttpCluster(Connection(config)))
            agent = LeadersAgent(
                self._clock, lambda: asyncio.create_task(act(settings, cluster, self._clock))
            )
            controller = self._controller(cluster, agent.lead)
            parts: list[Coroutine[Any, Any, None]] = [agent.run(), controller.run()]
            webhook = self._webhook(cluster) if self._address else None
            if webhook and self._address:
                parts.append(webhook.serve(*self._address))

            def missing() -> str:
                return controller.missing() or (webhook.missing() if webhook else "")

            if settings.health is not None:
                await stack.enter_async_context(health_served(settings.health, missing))
            if settings.metrics:
                await stack.enter_async_context(
                    metrics_served(
                        settings.metrics, cluster, self._clock, tls=webhook.tls if webhook else None
                    )
                )
            # What was made until here lives as long as the process: the collector may skip it.
            gc.freeze()
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(part) for part in (*parts, _tell(missing, ready))]
                    await stopping.wait()
                    await controller.hand_over()
                    if webhook and not webhook.missing():
                        await self._clock.sleep(LINGERS_SECONDS)
                    for task in tasks:
                        task.cancel()
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from failed

    def _controller(self, cluster: Cluster, leading: Callable[[bool], None]) -> Controller:
        return Controller(
            cluster,
            self._clock,
            kinds(),
            lease_seconds=self._settings.lease_seconds,
            namespace=self._settings.namespace,
            policy=self._policy,
            api_node=CONTROLLER_NODE,
            identity=self._settings.identity,
            leading=leading,
        )

    def _webhook(self, cluster: Cluster) -> Webhook:
        place = Place(self._settings.namespace, self._settings.service)
        return Webhook(cluster, served_kinds(kinds()), lambda: self._policy, self._clock, place)


async def _tell(missing: Callable[[], str], ready: Callable[[], None]) -> None:
    while missing():  # noqa: ASYNC110  (only while it starts)
        await asyncio.sleep(LOOK_SECONDS)
    ready()
