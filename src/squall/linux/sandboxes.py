"""Containers of local workloads: started by `squall-node sandbox`, found again in its files."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from squall.errors import TryAgain
from squall.linux.bridge import Bridge
from squall.linux.names import NO_RESOLVER, hosts_of, write_in_place
from squall.linux.processes import gone, send, started
from squall.linux.sandbox_cgroups import SandboxCgroups
from squall.node.sandboxes import Ended, Order, PodName, Sandbox

_SETTLE_SECONDS = 10.0  # for a shim to say that its command runs; 3 ms where nothing else does
_LOST = 137  # what a kubelet reports where the end was seen by nobody: as killed


@dataclass(frozen=True, slots=True)
class Places:
    """Where one installation keeps its containers."""

    mark: str
    """`squall-` and 8 digits: what everything of ours in this kernel is called."""
    run_dir: Path
    """Emptied by a reboot: namespaces, states, hosts files."""
    log_dir: Path
    """Survives a reboot."""


class LinuxSandboxes:
    """Containers of ours on this host.

    Every container is a directory in the run directory: `spec.json` (what was ordered),
    `state.json` (its processes), `exit.json` (its end). Nothing else is remembered, so whoever
    comes next sees what we see.
    """

    def __init__(self, places: Places, node_program: str) -> None:
        self._places, self._program = places, node_program
        self._bridge = Bridge(places.mark, places.run_dir, node_program)
        self._cgroups = SandboxCgroups(places.mark)

    async def up(self) -> None:
        """Find what an earlier process left, and clear away what it left half; called once."""
        for directory in (self._containers, self._hosts_dir):
            directory.mkdir(parents=True, exist_ok=True)
        self._places.log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._resolver.write_text(NO_RESOLVER)
        await self._bridge.up()
        for sandbox in await self.list():
            if (
                sandbox.pod not in self._bridge.pods()
            ):  # its network is gone, so it hangs in nothing
                await self.remove(sandbox.id)
        known = {path.name for path in self._containers.iterdir()}
        for id_ in await asyncio.to_thread(self._cgroups.containers) - known:
            await asyncio.to_thread(self._cgroups.remove, id_)
        for path in self._places.log_dir.iterdir():
            if path.stem not in known:
                path.unlink()

    async def down(self) -> None:
        """End every container and take everything away."""
        async with asyncio.TaskGroup() as group:
            for sandbox in await self.list():
                group.create_task(self.remove(sandbox.id))
        await self._bridge.down()
        await asyncio.to_thread(self._cgroups.remove_all)
        shutil.rmtree(self._places.run_dir, ignore_errors=True)

    async def attach(self, pod: PodName) -> tuple[str, ...]:
        """Give a pod its network and its name."""
        addresses = await self._bridge.attach(pod)
        self._name_all()
        return addresses

    async def detach(self, pod: PodName) -> None:
        """Take network and name of a pod away."""
        await self._bridge.detach(pod)
        self._hosts(pod).unlink(missing_ok=True)
        self._name_all()

    async def attached(self) -> Mapping[PodName, tuple[str, ...]]:
        """List pods that have a network, with their addresses."""
        return self._bridge.pods()

    async def list(self) -> Sequence[Sandbox]:
        """Read every container from its files."""
        found = [await self._settled(path.name) for path in self._containers.iterdir()]
        return [sandbox for sandbox in found if sandbox]

    async def start(self, order: Order) -> Sandbox:
        """Start a container; one that cannot be executed comes back ended."""
        try:
            await self._run(order)
        except BaseException:
            await asyncio.shield(self.remove(order.id))
            raise
        sandbox = await self._settled(order.id)
        if sandbox is None:
            raise TryAgain(f"{order.pod}: its container was removed while it started")
        return sandbox

    async def _run(self, order: Order) -> None:
        """Start the shim; returns when the command runs or cannot."""
        directory = self._containers / order.id
        directory.mkdir()
        draft, spec = directory / "spec.draft", directory / "spec.json"
        draft.write_text(json.dumps(self._spec(order, self._cgroups.create(order.id))))
        draft.rename(spec)  # whoever finds a spec finds a whole one
        program = await asyncio.create_subprocess_exec(
            self._program,
            "sandbox",
            str(spec),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HOSTNAME": order.pod.name, **order.environment},
        )
        async with asyncio.timeout(_SETTLE_SECONDS):
            await program.communicate()

    async def signal(self, id_: str, number: int) -> None:
        """Signal the init of a container."""
        if state := self._read(id_, "state"):
            send(state["init"], state["init_started"], number)

    async def ended(self, id_: str) -> Ended:
        """Wait until the shim has written the end down, or is gone without."""
        if state := self._read(id_, "state"):
            await gone(state["shim"], state["shim_started"])
        return self._ended(id_)

    async def remove(self, id_: str) -> None:
        """Kill what runs of a container, and forget it."""
        if state := self._read(id_, "state"):
            send(state["init"], state["init_started"], signal.SIGKILL)
            self._cgroups.thaw(id_)
            async with asyncio.timeout(_SETTLE_SECONDS):
                await gone(state["shim"], state["shim_started"])
        await asyncio.to_thread(self._cgroups.remove, id_)
        shutil.rmtree(self._containers / id_, ignore_errors=True)
        self.log_path(id_).unlink(missing_ok=True)

    def log_path(self, id_: str) -> Path:
        """Name the file with what a container wrote."""
        return self._places.log_dir / f"{id_}.log"

    @property
    def _containers(self) -> Path:
        return self._places.run_dir / "containers"

    @property
    def _hosts_dir(self) -> Path:
        return self._places.run_dir / "hosts"

    @property
    def _resolver(self) -> Path:
        return self._places.run_dir / "resolv.conf"

    def _hosts(self, pod: PodName) -> Path:
        return self._hosts_dir / self._bridge.network(pod).name

    def _name_all(self) -> None:
        pods = self._bridge.pods()
        for pod in pods:
            write_in_place(self._hosts(pod), hosts_of(pod, pods))

    def _spec(self, order: Order, cgroups: Sequence[Path]) -> dict[str, Any]:
        directory = self._containers / order.id
        return {
            "pod": asdict(order.pod),
            "pod_uid": order.pod_uid,
            "command": order.command,
            # As a kubelet cuts it: sethostname(2) takes 64 octets, a label of a name 63.
            "hostname": order.pod.name[:63].rstrip("-."),
            "directory": "/",
            "network": str(self._bridge.network(order.pod)),
            "cgroups": [str(path) for path in cgroups],
            "files": [
                (str(self._hosts(order.pod)), "/etc/hosts"),
                (str(self._resolver), "/etc/resolv.conf"),
            ],
            "without": str(self._bridge.network_dir),
            "log": str(self.log_path(order.id)),
            "state": str(directory / "state.json"),
            "exit": str(directory / "exit.json"),
        }

    def _read(self, id_: str, name: str) -> dict[str, Any] | None:
        with suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads(
                (self._containers / id_ / f"{name}.json").read_text()
            )
            return found
        return None

    async def _settled(self, id_: str) -> Sandbox | None:
        """Read a container; one that somebody killed half-started is ended for good."""
        spec = self._read(id_, "spec")
        if spec is None:
            await self.remove(id_)
            return None
        pod, uid = PodName(**spec["pod"]), spec["pod_uid"]
        state = self._read(id_, "state")
        if state is None:
            return Sandbox(id_, pod, uid, ended=self._ended(id_))
        runs = started(state["shim"]) == state["shim_started"]
        ended = None if runs and not self._read(id_, "exit") else self._ended(id_)
        return Sandbox(id_, pod, uid, state["init"], state["init_started"], state["at"], ended)

    def _ended(self, id_: str) -> Ended:
        end = self._read(id_, "exit")
        if end is None:
            return Ended(_LOST, time.time(), "nobody saw it end")
        oom = end["status"] == _LOST and self._cgroups.oom_kills(id_) > 0
        return Ended(end["status"], end["at"], end["message"], oom)
