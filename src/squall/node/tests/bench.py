"""One node in memory: API, clock, walls and a real journal; its agent can be killed anywhere."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from squall.api.cluster import HALT, LEASE, NODE_FAULT, POD, NotFound
from squall.api.fake_cluster import FakeCluster
from squall.api.policy import Policy
from squall.clock import FakeClock, settle
from squall.injection.world import World
from squall.injection.world.fake import Fate, Killed
from squall.node.agent import Agent
from squall.node.fake_processes import FakeProcesses
from squall.node.journal import Journal
from squall.node.notes import LaneKey, Notes
from squall.node.tests.paint import PAINT, Walls

NODE = "n1"
LEASE_SECONDS = 10.0


class DyingJournal(Journal):
    """Dies before any of its writes, as its fate wants."""

    def __init__(self, path: Path, boot_id: str, fate: Fate) -> None:
        self._fate = fate
        super().__init__(path, boot_id)

    @contextmanager
    def _transaction(self, *, lasting: bool = True) -> Iterator[None]:
        self._fate.change()
        with super()._transaction(lasting=lasting):
            yield

    def memory(self, key: LaneKey) -> Notes:
        return cast("Notes", DyingNotes(super().memory(key), self._fate))

    def strike(self, fault: str, mark: str) -> bool:
        self._fate.change()
        return super().strike(fault, mark)

    def struck(self, fault: str, mark: str, outcome: str = "") -> None:
        self._fate.change()
        super().struck(fault, mark, outcome)


class DyingNotes:
    """Dies before anything is kept."""

    def __init__(self, notes: Notes, fate: Fate) -> None:
        self._notes, self._fate = notes, fate

    def keep(self, key: str, value: bytes) -> bytes:
        if self.recall(key) is None:
            self._fate.change()
        return self._notes.keep(key, value)

    def recall(self, key: str) -> bytes | None:
        return self._notes.recall(key)


class Bench:
    """What tests of the agent stand on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.boot_id = folder, "boot-1"
        self.clock, self.cluster, self.fate = FakeClock(), FakeCluster(), Fate()
        self.walls, self.processes = Walls(self.fate), FakeProcesses()
        self.policy = Policy()
        self.kinds = {"PaintChaos": PAINT}
        self.agent: Agent | None = None
        self.journal: Journal | None = None
        self._task: asyncio.Task[None] | None = None
        self._renewals = 0

    @property
    def world(self) -> World:
        rest: Any = None
        walls: Any = self.walls
        return World(self.clock, walls, rest, rest, rest)

    def open_journal(self) -> Journal:
        return DyingJournal(self.folder / "journal.db", self.boot_id, self.fate)

    async def start(self, rounds: int = 200) -> None:
        self.journal = self.open_journal()
        self.agent = Agent(
            self.cluster,
            self.clock,
            self.kinds,
            self.world,
            self.processes,
            self.journal,
            node_name=NODE,
            lease_seconds=LEASE_SECONDS,
            policy=self.policy,
        )
        self._task = asyncio.create_task(self.agent.run())
        await settle(rounds)

    async def kill(self) -> None:
        """End the agent without a word, wherever it is; raises if it had ended by an error."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
            except BaseException as error:
                if not killed(error):
                    raise
            finally:
                self.close_journal()

    async def close(self) -> None:
        """Clean up after a test, however it went."""
        await self.kill()
        self.close_journal()

    def close_journal(self) -> None:
        if self.journal is not None:
            self.journal.close()
            self.journal = None

    @property
    def dead(self) -> bool:
        return self._task is None or self._task.done()

    async def started_to_die_before(self, change: int | None) -> None:
        """Start an agent that dies before its n-th change, maybe while it starts."""
        self.fate.changes, self.fate.die_before = 0, change
        try:
            await self.start()
        except Killed:
            self._task = None

    async def revived(self) -> None:
        """Start another agent where one died."""
        self.fate.die_before = None
        await self.kill()
        self.close_journal()
        await self.start()

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    async def stop(self) -> None:
        assert self.agent is not None
        assert self._task is not None
        await self.agent.stop(restore=True)
        await self._task
        self._task = None
        self.close_journal()

    async def rest(self) -> None:
        await settle(200)

    async def pass_seconds(self, seconds: float, *, renewing: bool = True) -> None:
        """Let time pass, with or without a controller that renews its lease."""
        while seconds > 0:
            if renewing:
                await self.renew()
            await self.clock.advance(min(seconds, 1.0))
            await settle(100)
            seconds -= 1.0

    # The controller's side

    async def renew(self) -> None:
        self._renewals += 1
        spec = {"holderIdentity": "c", "renewTime": str(self._renewals)}
        try:
            await self.cluster.patch(LEASE, "squall", "squall-controller", {"spec": spec})
        except NotFound:
            meta = {"name": "squall-controller", "namespace": "squall"}
            await self.cluster.create(LEASE, {"metadata": meta, "spec": spec})

    async def pod(self, name: str = "web", container: str = "") -> None:
        """Let a pod run, in a container of its own."""
        container = container or f"{name}-1"
        pid = len(self.processes.running) + 100
        self.processes.running[container] = (pid, 1)
        self.walls.pids.add(pid)
        status = {"containerStatuses": [{"name": "main", "containerID": f"squall://{container}",
                                         "state": {"running": {}}}]}  # fmt: skip
        meta = {"name": name, "namespace": "default"}
        body = {"metadata": meta, "spec": {"nodeName": NODE}, "status": status}
        if (POD, "default", name) in self.cluster.objects:
            key = (POD, "default", name)
            self.cluster._store(key, self.cluster.objects[key] | {"status": status}, "MODIFIED")
        else:
            await self.cluster.create(POD, body)

    async def end_container(self, container: str) -> None:
        pid, _ = self.processes.running.pop(container)
        self.walls.pids.discard(pid)

    def target(self, name: str = "web", **more: Any) -> dict[str, Any]:
        pod = self.cluster.objects.get((POD, "default", name))
        uid = pod["metadata"]["uid"] if pod else f"uid-{name}"
        return {
            "id": f"default/{name}",
            "selectorKey": ".",
            "podUid": uid,
            "containerId": f"squall://{name}-1",
        } | more

    async def fault(self, name: str = "f1", color: str = "red", **more: Any) -> None:
        """Store a NodeFault; its experiment is as old as it."""
        targets = more.pop("targets", None) or [self.target()]
        age = more.pop("age", timedelta())
        created = self.clock.now() + timedelta(microseconds=len(self.cluster.objects)) - age
        spec = {
            "nodeName": NODE,
            "experiment": {"kind": "PaintChaos", "namespace": "default", "name": name,
                           "uid": f"x-{name}", "created": created.isoformat()},
            "desiredPhase": "Run",
            "faults": {".": {"color": color}},
            "targets": targets,
        } | more  # fmt: skip
        meta = {"name": name, "namespace": "squall"}
        await self.cluster.create(NODE_FAULT, {"metadata": meta, "spec": spec})
        await settle(200)

    async def change(self, name: str = "f1", **spec: Any) -> None:
        await self.cluster.patch(NODE_FAULT, "squall", name, {"spec": spec})
        await settle(200)

    async def delete(self, name: str = "f1") -> None:
        await self.cluster.delete(NODE_FAULT, "squall", name)
        await settle(200)

    async def halt(self, reason: str = "stop it") -> None:
        await self.cluster.create(HALT, {"metadata": {"name": "now"}, "spec": {"reason": reason}})
        await settle(200)

    async def release(self) -> None:
        await self.cluster.delete(HALT, None, "now")
        await settle(200)

    def records(self, name: str = "f1") -> list[dict[str, Any]]:
        found = self.cluster.objects[NODE_FAULT, "squall", name]
        records: list[dict[str, Any]] = found.get("status", {}).get("targets", [])
        return records

    def record(self, name: str = "f1") -> dict[str, Any]:
        return self.records(name)[0]

    def colors(self, name: str = "web") -> list[str]:
        return [color for _, color in self.walls.coats.get(f"default/{name}", ())]


def killed(error: BaseException) -> bool:
    """Did the agent end by a planned kill?"""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(Killed) is not None
    return isinstance(error, Killed)
