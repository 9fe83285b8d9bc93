"""An installation with one target that many faults are stacked on, and a target it talks to."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from squall.api.cluster import AlreadyExists, Cluster
from squall.app.places import Places
from squall.linux.processes import Processes
from testbed.installation import (
    Installation,
    eventually,
    gone,
    injected,
    proven,
    ready_pod,
    resource_of,
)
from testbed.stack import UNPROVEN, Stack, settled
from testbed.traces import Host, Namespace, difference


class Stacked:
    """What is on the target by now, and what is felt of it."""

    def __init__(self, up: Installation, folder: Path) -> None:
        self.up, self.stack, self.host = up, Stack(folder), Host(up.directory)
        self.live: set[str] = set()
        """Names of the experiments that should be felt."""
        self.pid = 0
        """The target's first process."""
        self._own: frozenset[int] = frozenset()
        self._held = ExitStack()
        self._namespace: Namespace

    async def __aenter__(self) -> Self:
        """Start both, and wait until the target feels nothing."""
        async with self.up.cluster() as cluster:
            await self._run(cluster, "peer", self.stack.peer_command())
            pod = await ready_pod(cluster, "peer")
            self.stack.peer_address = pod["status"]["podIP"]
            await self._run(cluster, "web", self.stack.command())
            await self.found(cluster)
        self._namespace = self._held.enter_context(Namespace(self.pid))
        await self.settled()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of its namespace."""
        self._held.close()

    async def found(self, cluster: Cluster) -> None:
        """Find the target's process, which may be another one than before."""
        pod = await ready_pod(cluster, "web")
        self.stack.address = pod["status"]["podIP"]
        id_ = pod["status"]["containerStatuses"][0]["containerID"].partition("//")[2]
        self.pid = (await Processes().resolve([id_]))[id_][0]
        self._own = frozenset()
        self._own = frozenset(self.company())

    async def _run(self, cluster: Cluster, name: str, command: tuple[str, ...]) -> None:
        self.up.squall("run", "--label", f"app={name}", "--name", name, "--", *command)
        await ready_pod(cluster, name)

    async def put_on(self, *names: str) -> None:
        """Apply experiments together, but those that are; returns when each is felt and proven."""
        objects = [self.stack.experiment(name) for name in names]
        async with self.up.cluster() as cluster:
            for obj in objects:
                with suppress(AlreadyExists):
                    await cluster.create(resource_of(obj), obj)
            for obj in objects:
                await injected(cluster, obj)
            self.live |= set(names)
            await self.settled()
            # Probes that only count need traffic: looking is traffic.
            looking = asyncio.create_task(self._look_on())
            try:
                for name, obj in zip(names, objects, strict=True):
                    if name not in UNPROVEN:
                        await proven(cluster, obj)
            finally:
                looking.cancel()

    async def take_off(self, name: str) -> None:
        """Delete an experiment; returns when it is gone."""
        async with self.up.cluster() as cluster:
            await gone(cluster, self.stack.experiment(name))
        self.live.discard(name)

    async def _look_on(self) -> None:
        while True:
            with suppress(AssertionError, OSError):
                await self.stack.felt(self.company())

    async def settled(self) -> None:
        """Wait until exactly what is on the target is felt, each once."""
        await settled(lambda: self.stack.felt(self.company()), self.live)

    def company(self) -> Mapping[int, str]:
        """Name the processes that are counted into the target and are not its own, by their id."""
        cgroup = Path(f"/proc/{self.pid}/cgroup").read_text()
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if int(entry.name) not in self._own and (entry / "cgroup").read_text() == cgroup:
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
        return found

    def picture(self) -> Mapping[str, str]:
        """All that has to be the same again afterwards."""
        of, namespace = Path(f"/proc/{self.pid}"), self._namespace
        links = {int(link.name): str(link.readlink()) for link in (of / "fd").iterdir()}
        files = {fd: link for fd, link in links.items() if not link.startswith("socket:")}
        maps = (of / "maps").read_text().splitlines()
        routes = namespace.run("ip", "route", "show", "table", "all").splitlines()
        mine = {
            "files": json.dumps(files, indent=0, sort_keys=True),
            "maps": "\n".join(line for line in maps if "/" in line),
            "directory": str((of / "cwd").readlink()),
            # Addresses of one link come a second after their device.
            "routes": "\n".join(line for line in routes if "fe80:" not in line),
            "rules": namespace.run("ip", "rule"),
            "listening": namespace.run("ss", "-Hlntu"),
            "run directory": "\n".join(self._run_directory()),
            "holders": " ".join(map(str, self.host.holders())),
        }
        return {**mine, **namespace.traces(), **self.host.traces(self.pid)}

    async def as_it_was(self, before: Mapping[str, str]) -> None:
        """Wait until nothing is there that was not before.

        Raises:
            AssertionError: something stays; says what.
        """
        try:
            await eventually(lambda: not difference(before, self.picture()), "it is as it was")
        except TimeoutError:
            raise AssertionError(difference(before, self.picture())) from None

    def _run_directory(self) -> list[str]:
        run = Places(self.up.directory).run
        return sorted(str(path.relative_to(run)) for path in run.rglob("*"))
