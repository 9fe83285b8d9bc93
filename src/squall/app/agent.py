"""`squall agent`: what makes the faults of one node of a cluster true, as a process of its own."""

import gc
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack

from squall.api.cluster import Cluster
from squall.app.inspection import health_served
from squall.app.places import Places, alone, boot_id, tidied
from squall.app.policies import policy_of
from squall.app.running import (
    act_until,
    asked_to_stop,
    children_without_threads,
    public_key,
    watched,
)
from squall.app.world import world
from squall.cli.parts import AgentSettings
from squall.faults import kinds
from squall.kubernetes.client import HttpCluster
from squall.kubernetes.connection import Connection
from squall.kubernetes.server import chosen
from squall.linux import capabilities
from squall.linux.aside import see_every_cgroup, stand_aside, tidy_aside
from squall.linux.clock import SystemClock
from squall.linux.processes import Processes
from squall.linux.shaping import Shaping, TriedShaping
from squall.linux.trials import TRIALS
from squall.node.agent import Agent
from squall.node.journal import Journal
from squall.node.presence import Presence


class NodeAgent:
    """The agent of one node, from start to clean stop."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._places = Places(settings.data_directory)
        self._clock = SystemClock()
        self._policy = policy_of(settings.policy)

    async def run(self, ready: Callable[[], None]) -> None:
        """Run until SIGTERM or SIGINT, then restore every target and end."""
        see_every_cgroup()
        children_without_threads()
        stopping = asked_to_stop()
        for directory in (self._places.directory, self._places.run):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            # First of all: a watcher of ours would take the place of the other one's.
            stack.enter_context(alone(self._places))
            stack.enter_context(tidied(self._places))
            # Holders and watcher outlive the container, or the unit, that this process runs in.
            stand_aside(self._places.aside)
            stack.callback(tidy_aside, self._places.aside)
            watcher = await stack.enter_async_context(
                watched(self._places, self._settings.lease_seconds)
            )
            journal = Journal(self._places.journal, boot_id())
            stack.callback(journal.close)
            cluster = await stack.enter_async_context(self._cluster())
            shaping = TriedShaping(capabilities.shaping)
            agent = self._agent(cluster, journal, shaping)
            presence = self._presence(cluster, await public_key(journal.sealing_key))

            def missing() -> str:
                return agent.missing() or presence.missing()

            if self._settings.health is not None:
                await stack.enter_async_context(health_served(self._settings.health, missing))
            if self._settings.metrics:
                from squall.app.metrics_page import metrics_served  # noqa: PLC0415  (few ask)

                await stack.enter_async_context(
                    metrics_served(self._settings.metrics, cluster, self._clock)
                )
            # What was made until here lives as long as the process: the collector may skip it.
            gc.freeze()
            parts = [shaping.find_out(), watcher.keep(), presence.run()]
            await act_until(stopping, agent, parts, ready)
            await presence.leave()

    def _presence(self, cluster: Cluster, sealing_key: str) -> Presence:
        return Presence(
            cluster,
            self._clock,
            namespace=self._settings.namespace,
            node_name=self._settings.node_name,
            capabilities=capabilities.LinuxCapabilities(TRIALS),
            needs=(need for kind in kinds().values() for need in kind.needs),
            sealing_key=sealing_key,
            pod=socket.gethostname(),
        )

    def _cluster(self) -> HttpCluster:
        config = chosen(self._settings.kubeconfig, os.environ, self._places.directory)
        return HttpCluster(Connection(config))

    def _agent(self, cluster: Cluster, journal: Journal, shaping: Shaping) -> Agent:
        settings = self._settings
        return Agent(
            cluster,
            self._clock,
            kinds(),
            world(
                self._places,
                cluster,
                self._clock,
                shaping,
                lease_seconds=settings.lease_seconds,
                allow_host_network=self._policy.allow_host_network,
            ),
            Processes(),
            journal,
            node_name=settings.node_name,
            lease_seconds=settings.lease_seconds,
            namespace=settings.namespace,
            policy=self._policy,
        )
