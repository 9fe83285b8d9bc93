"""What the command line needs from the rest of the house; see `squall.cli.parts`."""

import asyncio
import os
import secrets
import stat
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from squall.api.cluster import ApiError, Cluster
from squall.api.policy import Policy
from squall.app.places import Places, boot_id
from squall.cli.parts import (
    DEFAULT_DATA_DIRECTORY,
    Access,
    AgentSettings,
    ControllerSettings,
    UpSettings,
)
from squall.clock import Clock
from squall.errors import TryAgain
from squall.faults import kinds
from squall.kubernetes.client import HttpCluster
from squall.kubernetes.connection import Connection
from squall.kubernetes.server import Server, chosen
from squall.node.doctor import Finding, examine

CHUNK_BYTES = 65536


class Doors:
    """Implements `Parts` on this host."""

    @asynccontextmanager
    async def cluster(self, access: Access) -> AsyncIterator[Cluster]:
        """Connect to the API that `access` finds."""
        async with HttpCluster(Connection(_server(access))) as cluster:
            yield cluster

    def clock(self) -> Clock:
        """Give the clock of this host."""
        from squall.linux.clock import SystemClock  # noqa: PLC0415  (see `up`)

        return SystemClock()

    async def up(self, settings: UpSettings, ready: Callable[[str], None]) -> None:
        """Run everything on this host until stopped."""
        from squall.app.up import Up  # noqa: PLC0415  (server and kernel, for this verb alone)

        if os.geteuid() != 0:
            raise PermissionError("squall up needs root: it makes namespaces and cgroups")
        await Up(settings).run(ready)

    async def agent(self, settings: AgentSettings, ready: Callable[[], None]) -> None:
        """Act on one node of a cluster until stopped."""
        from squall.app.agent import NodeAgent  # noqa: PLC0415  (see `up`)

        if os.geteuid() != 0:
            raise PermissionError("squall agent needs root: it acts in the targets' namespaces")
        await NodeAgent(settings).run(ready)

    async def controller(self, settings: ControllerSettings, ready: Callable[[], None]) -> None:
        """Control until stopped."""
        from squall.app.controller import ClusterController  # noqa: PLC0415  (see `up`)

        await ClusterController(settings).run(ready)

    async def execute(
        self, access: Access, pod: str, container: str | None, command: Sequence[str]
    ) -> int:
        """Run a command inside a target."""
        connection = Connection(_server(access))
        from squall.kubernetes.exec import Streams, run_in_pod  # noqa: PLC0415  (see `up`)

        streams = Streams(_writer(1), _writer(2), _chunks())
        try:
            return await run_in_pod(
                connection, access.namespace, pod, command, streams, container=container or ""
            )
        finally:
            await connection.aclose()

    async def diagnose(self) -> Sequence[Finding]:
        """Try every capability that fault kinds need."""
        from squall.linux.capabilities import LinuxCapabilities  # noqa: PLC0415  (see `up`)
        from squall.linux.trials import TRIALS  # noqa: PLC0415

        if os.geteuid() != 0:
            raise PermissionError("squall doctor needs root: it tries everything for real")
        return await examine(LinuxCapabilities(TRIALS), kinds())

    async def recover(self, data_directory: Path) -> AsyncIterator[str]:
        """Take back everything the journal of this host knows."""
        from squall.app.up import no_objects, objects_of  # noqa: PLC0415  (see `up`)
        from squall.app.world import world  # noqa: PLC0415
        from squall.kubernetes.embedded.loopback import Loopback  # noqa: PLC0415
        from squall.linux.aside import see_every_cgroup  # noqa: PLC0415
        from squall.linux.capabilities import shaping  # noqa: PLC0415
        from squall.linux.clock import SystemClock  # noqa: PLC0415
        from squall.linux.exchanges import LinuxHttp  # noqa: PLC0415
        from squall.linux.processes import Processes  # noqa: PLC0415
        from squall.node.journal import Journal  # noqa: PLC0415
        from squall.node.recover import recover  # noqa: PLC0415

        if os.geteuid() != 0:
            raise PermissionError("squall recover needs root: it acts in the targets' namespaces")
        places = Places(data_directory)
        if not places.journal.exists():
            yield f"{places.journal} does not exist: no agent has worked from there"
            return
        see_every_cgroup()
        journal, clock = Journal(places.journal, boot_id()), SystemClock()
        try:
            # An agent of a cluster has none beside its journal.
            objects = objects_of(places) if places.objects.exists() else no_objects()
        except (TryAgain, OSError) as unreadable:
            yield f"{unreadable}; going on without"
            objects = no_objects()
        try:
            acting = world(places, Loopback(objects), clock, await shaping(), lease_seconds=0)
            outcomes = await recover(journal, kinds(), acting, Processes())
            # Those that have nothing in force any more, and stay for what is under way, too.
            await LinuxHttp(places.run / "http", lease_seconds=0).end_all()
        finally:
            objects.store.close()
            journal.close()
        for outcome in outcomes:
            yield f"{outcome.kind} {outcome.target}: {outcome.outcome}"
        if journal.lost:
            why = (
                f"the journal could not be read (now {journal.lost}), so nobody knows what it named"
            )
            raise TryAgain(f"{why}; start squall up: it finds what experiments still name")
        if not all(outcome.clean for outcome in outcomes):
            raise TryAgain("not everything could be restored; the journal keeps what is left")
        yield "every target is as it was" if outcomes else "there was nothing to take back"

    async def preview(self, access: Access, manifest: dict[str, Any]) -> Sequence[str]:
        """Name exactly the targets an experiment would hit."""
        from squall.app.policies import published  # noqa: PLC0415  (see `up`)
        from squall.controller.preview import preview  # noqa: PLC0415

        async with self.cluster(access) as cluster:
            unknown: list[str] = []
            try:
                policy = await published(cluster)
            except ApiError as refused:
                policy = Policy(allow_host_network=True)
                unknown = [f"what this installation allows could not be read: {refused}"]
            seed = secrets.randbelow(2**31)
            found = await preview(cluster, kinds(), manifest, new_seed=seed, policy=policy)
            return [*found.lines(), *unknown]


def _server(access: Access) -> Server:
    return chosen(access.kubeconfig, os.environ, DEFAULT_DATA_DIRECTORY)


def _writer(descriptor: int) -> Callable[[bytes], None]:
    def write(octets: bytes) -> None:
        while octets:
            octets = octets[os.write(descriptor, octets) :]

    return write


async def _chunks() -> AsyncIterator[bytes]:
    """Read standard input as it comes."""
    if sys.stdin is None or sys.stdin.closed:
        return
    mode = os.fstat(0).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(0)):
        # A file, or /dev/null: never waits, and the event loop cannot wait for it.
        while chunk := os.read(0, CHUNK_BYTES):
            yield chunk
        return
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while chunk := await reader.read(CHUNK_BYTES):
        yield chunk
