"""`squall up`: a Kubernetes API, controller, agent and local workloads, in one process."""

import gc
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from squall.api.policy import Policy
from squall.app.places import Places, alone, boot_id, node_name, remove_if_empty
from squall.app.policies import publish
from squall.app.running import act_until, asked_to_stop, children_without_threads, watched
from squall.app.world import world
from squall.cli.parts import UpSettings
from squall.controller.loop import Controller
from squall.errors import TryAgain
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.embedded.certificates import certificates
from squall.kubernetes.embedded.core_kinds import core_kinds
from squall.kubernetes.embedded.kinds import Kinds
from squall.kubernetes.embedded.kubeconfig import token, write_kubeconfig
from squall.kubernetes.embedded.loopback import Loopback
from squall.kubernetes.embedded.objects import Objects
from squall.kubernetes.embedded.pods_of_host import HostPods, register
from squall.kubernetes.embedded.pods_runtime import PodRuntime
from squall.kubernetes.embedded.pods_status import Host
from squall.kubernetes.embedded.serve import Server
from squall.kubernetes.embedded.store import Store
from squall.kubernetes.embedded.workloads import LocalWorkloads
from squall.linux import capabilities
from squall.linux.clock import SystemClock
from squall.linux.holder import program
from squall.linux.host_containers import LinuxHostContainers
from squall.linux.logs import LogFiles
from squall.linux.processes import Processes
from squall.linux.sandboxes import LinuxSandboxes
from squall.linux.sandboxes import Places as SandboxPlaces
from squall.linux.sessions import Commands
from squall.linux.shaping import Shaping, TriedShaping
from squall.node.agent import Agent
from squall.node.journal import Journal
from squall.node.sandboxes import HostContainer
from squall.sealing import public_of


def objects_of(places: Places) -> Objects:
    """Open the store of an installation, with every kind that it serves.

    Raises:
        TryAgain: it cannot be read.
    """
    places.objects.touch(0o600)  # SQLite gives its log the same mode
    try:
        store = Store(places.objects)
    except sqlite3.Error as failure:
        why = f"{places.objects} cannot be opened: {failure}"
        hint = "without it, experiments are forgotten and what they did is taken back"
        raise TryAgain(f"{why}; put a copy back, or move it away: {hint}") from failure
    return _with_every_kind(store)


def no_objects() -> Objects:
    """Serve nothing that was stored, for who must do without."""
    return _with_every_kind(Store(":memory:"))


def _with_every_kind(store: Store) -> Objects:
    return Objects(store, Kinds([*core_kinds(), *served_kinds(kinds())]))


class Up:
    """One installation on this host, from start to clean stop.

    What is started first is stopped last: targets are restored while controller and API can still
    write down that they were.
    """

    def __init__(self, settings: UpSettings) -> None:
        self._settings = settings
        self._places = Places(settings.data_directory)
        self._clock = SystemClock()
        self._policy = Policy(allow_host_network=settings.allow_host_network)
        self._host = Host(node_name(), (settings.host,))

    async def run(self, ready: Callable[[str], None]) -> None:
        """Run until SIGTERM or SIGINT, then restore every target and end."""
        children_without_threads()
        stopping = asked_to_stop()
        self._places.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._places.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            stack.callback(remove_if_empty, self._places.run)
            # First of all: a watcher of ours would take the place of the other one's.
            stack.enter_context(alone(self._places))
            watcher = await stack.enter_async_context(
                watched(self._places, self._settings.lease_seconds)
            )
            journal = Journal(self._places.journal, boot_id())
            stack.callback(journal.close)
            objects = objects_of(self._places)
            stack.callback(objects.store.close)
            sandboxes = await stack.enter_async_context(self._sandboxes())
            address = await stack.enter_async_context(self._served(objects, sandboxes))
            await register(Loopback(objects, "squall-node"), self._host, self._clock)
            await publish(Loopback(objects, "squall-controller"), self._policy)
            shaping = TriedShaping(capabilities.shaping)
            agent = self._agent(objects, journal, shaping)
            parts = [
                shaping.find_out(),
                watcher.keep(),
                self._controller(objects, journal),
                *self._pods(objects, sandboxes),
            ]
            # What was made until here lives as long as the process: the collector may skip it.
            gc.freeze()
            await act_until(stopping, agent, parts, lambda: ready(address))

    @asynccontextmanager
    async def _sandboxes(self) -> AsyncIterator[LinuxSandboxes]:
        places = SandboxPlaces(self._places.mark, self._places.run, self._places.logs)
        sandboxes = LinuxSandboxes(places, program())
        await sandboxes.up()
        stopped = False
        try:
            yield sandboxes
            stopped = True
        finally:
            # After a failure containers go on, to be adopted; where none is, nothing is kept.
            if stopped or not await sandboxes.list():
                await sandboxes.down()

    @asynccontextmanager
    async def _served(self, objects: Objects, sandboxes: LinuxSandboxes) -> AsyncIterator[str]:
        host, directory = self._settings.host, self._places.directory
        names = sorted({host, "localhost", "127.0.0.1", "::1", self._host.name})
        certified, secret = certificates(directory, names), token(directory)
        logs = LogFiles(sandboxes.log_path, sandboxes.ended)
        runtime = PodRuntime(logs, Processes(), Commands(program()))
        server = Server(objects, secret, certified.server_context(), runtime)
        try:
            port = await server.start(host, self._settings.port)
        except OSError as taken:
            listen = f"{host}:{self._settings.port}"
            raise OSError(taken.errno, f"{taken.strerror}; choose with --listen", listen) from taken
        write_kubeconfig(self._places.kubeconfig, host, port, certified, secret)
        try:
            yield f"https://{host}:{port}"
        finally:
            await server.stop()

    def _agent(self, objects: Objects, journal: Journal, shaping: Shaping) -> Agent:
        cluster = Loopback(objects, "squall-agent")
        return Agent(
            cluster,
            self._clock,
            kinds(),
            world(
                self._places,
                cluster,
                self._clock,
                shaping,
                lease_seconds=self._settings.lease_seconds,
                allow_host_network=self._settings.allow_host_network,
            ),
            Processes(),
            journal,
            node_name=self._host.name,
            lease_seconds=self._settings.lease_seconds,
            policy=self._policy,
        )

    def _controller(self, objects: Objects, journal: Journal) -> Coroutine[Any, Any, None]:
        return Controller(
            Loopback(objects, "squall-controller"),
            self._clock,
            kinds(),
            lease_seconds=self._settings.lease_seconds,
            policy=self._policy,
            identity=self._host.name,
            sealing_key=public_of(journal.sealing_key),
        ).run()

    def _pods(self, objects: Objects, sandboxes: LinuxSandboxes) -> list[Coroutine[Any, Any, None]]:
        cluster = Loopback(objects, "squall-node")
        mirrored = LinuxHostContainers() if self._settings.containers else _NoContainers()
        return [
            LocalWorkloads(cluster, sandboxes, self._host, self._clock).run(),
            HostPods(cluster, mirrored, self._host, self._clock).run(),
        ]


class _NoContainers:
    """What other runtimes run, where nobody wants to know: Pods that were shown before go."""

    async def list(self) -> Sequence[HostContainer]:
        """Find nothing."""
        return ()

    async def signal(self, container: HostContainer, number: int) -> None:
        """Touch nothing."""
