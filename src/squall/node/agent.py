"""The agent of one node: makes its NodeFaults true, and takes back what nobody answers for."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from squall.api.cluster import (
    HALT,
    LEASE,
    NAMESPACE,
    NODE_FAULT,
    POD,
    Change,
    Cluster,
    Event,
    Object,
    Resource,
)
from squall.api.metadata import INSTALL_NAMESPACE
from squall.api.policy import Policy
from squall.clock import Clock
from squall.injection.kind import FaultKind
from squall.injection.world import World
from squall.node.api_targets import ApiTargets
from squall.node.assignments import Assignment, Refused, Wanted, assigned
from squall.node.driving import Driver
from squall.node.holdings import Holdings, Judged
from squall.node.intents import Intents
from squall.node.journal import Journal
from squall.node.lane import Lane
from squall.node.leases import CONTROLLER_LEASE, Halts, Silence, Situation, Standing
from squall.node.limits import FREE, Limits
from squall.node.notes import LaneKey
from squall.node.placing import place, place_refused
from squall.node.recalling import recalled
from squall.node.reports import Reports
from squall.node.rooms import Rooms
from squall.node.targets import Finder, Processes, Targets, bare
from squall.node.waiting import unless
from squall.telemetry import logger

RESTORE_SECONDS = 10.0
"""How long `stop` waits for targets to be restored; what is left then, the journal holds."""


class _Stopped(Exception):
    """`stop` was called and is through."""


class Agent:
    """Watches what this node shall feel, and converges every target to it.

    Ending `run` by cancelling it leaves faults as they are: an agent that is started again takes
    them over. Ending it by `stop` takes them back.

    Args:
        cluster: the API.
        clock: time.
        kinds: the fault kinds this agent knows, by name.
        world: what injectors, strikers and probes act through.
        processes: finds containers on this node; None where there is no node: then the targets
            are pods anywhere, touched by the API alone, and the journal need not last.
        journal: held open by the caller, who closes it.
        node_name: only NodeFaults for this node are carried out.
        lease_seconds: silence of the controller after which faults are taken back.
        namespace: where NodeFaults and the controller's Lease live.
        policy: what may be hit, whatever a NodeFault says.
    """

    def __init__(  # noqa: PLR0913  (one argument for each port)
        self,
        cluster: Cluster,
        clock: Clock,
        kinds: Mapping[str, FaultKind],
        world: World,
        processes: Processes | None,
        journal: Journal,
        *,
        node_name: str,
        lease_seconds: float,
        namespace: str = INSTALL_NAMESPACE,
        policy: Policy = FREE,
    ) -> None:
        self._cluster, self._clock = cluster, clock
        self._journal, self._intents = journal, Intents(journal)
        self._node_name, pods = node_name, policy.target_namespace or None
        self._where = {NODE_FAULT: namespace, LEASE: namespace, POD: pods}
        self._rooms = Rooms(kinds, world)
        self._targets: Finder = Targets(processes) if processes else ApiTargets()
        self._limits = Limits(policy)
        self._reports = Reports(cluster, clock, namespace)
        self._holdings = Holdings(journal, clock)
        self._silence = Silence(lease_seconds, clock.boottime())
        self._halts = Halts()
        self._lanes: dict[LaneKey, Lane] = {}
        self._driver = Driver(clock, self._note_rest)
        self._touched = {touched.key: touched for touched in journal.touched()}
        self._unsynced = {NODE_FAULT, HALT, *self._limits.watched}
        self._group: asyncio.TaskGroup | None = None
        self._changed, self._rested, self._stopped = (asyncio.Event() for _ in range(3))
        self._stopping = False

    async def run(self) -> None:
        """Work until `stop`, or until cancelled.

        Raises:
            ApiError: the API does not serve what an agent needs.
        """
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self._follow_faults())
                self._group.create_task(self._follow(HALT, self._halts.saw))
                self._group.create_task(self._follow_lease())
                if not self._targets.by_api:
                    self._group.create_task(self._follow_pods())
                if NAMESPACE in self._unsynced:
                    self._group.create_task(self._follow(NAMESPACE, self._limits.saw_namespace))
                self._group.create_task(self._reports.run())
                self._group.create_task(self._plan_for_ever())
                self._group.create_task(self._rooms.warm_up())
                await self._stopped.wait()
                raise _Stopped  # noqa: TRY301  (ends the group, and with it every task in it)
        except* _Stopped:
            pass

    def missing(self) -> str:
        """Name what this agent still has to list before anything may begin; empty: nothing."""
        return ", ".join(sorted(resource.plural for resource in self._unsynced))

    async def stop(self, *, restore: bool = True) -> None:
        """End `run`; with `restore`, after giving every target back what it was."""
        if restore and self._group is not None:
            self._stopping = True
            self._changed.set()
            try:
                async with asyncio.timeout(RESTORE_SECONDS):
                    await self._rested.wait()
                    await self._reports.flush()
            except TimeoutError:
                logger(__name__).error("not every target was restored; run: squall recover --all")
        self._stopped.set()

    async def _follow_faults(self) -> None:
        listed: set[str] = set()
        async for event in self._watch(NODE_FAULT, f"spec.nodeName={self._node_name}"):
            if event.change is Change.SYNCED:
                if self._now_synced(NODE_FAULT, event):
                    self._holdings.keep_only(listed)
            elif event.change is Change.DELETED:
                self._reports.drop(event.object["metadata"]["uid"])
                self._holdings.forget(event.object["metadata"]["uid"])
            elif not self._takes_in(event.object, listed):
                continue
            self._changed.set()

    def _takes_in(self, node_fault: Object, listed: set[str]) -> bool:
        """Hold a NodeFault; False when it says what it said before, as after a status of ours."""
        uid, generation = node_fault["metadata"]["uid"], node_fault["metadata"].get("generation", 1)
        listed.add(uid)
        if self._reports.follows(uid, generation):
            return False
        if held := self._holdings.hold(node_fault):
            self._reports.follow(held, node_fault.get("status") or {})
        return True

    async def _follow(self, resource: Resource, saw: Callable[[Event], bool]) -> None:
        async for event in self._watch(resource):
            if saw(event) or self._now_synced(resource, event):
                self._changed.set()

    async def _follow_lease(self) -> None:
        async for event in self._watch(LEASE, f"metadata.name={CONTROLLER_LEASE}"):
            if event.change in {Change.ADDED, Change.MODIFIED}:
                was_silent = self._situation().silent
                self._silence.saw(event.object, self._clock.boottime())
                if was_silent:
                    self._changed.set()

    async def _follow_pods(self) -> None:
        async for event in self._watch(POD, f"spec.nodeName={self._node_name}"):
            if self._limits.saw_pod(event) or self._now_synced(POD, event):
                self._changed.set()
            if uid := self._targets.saw(event):
                await self._targets.learn(self._targets.containers_of(uid))
                for lane in self._lanes.values():
                    if lane.key.pod_uid == uid:
                        lane.look_again()

    def _now_synced(self, resource: Resource, event: Event) -> bool:
        first = event.change is Change.SYNCED and resource in self._unsynced
        self._unsynced -= {resource} if first else set()
        return first

    async def _watch(self, resource: Resource, fields: str = "") -> AsyncGenerator[Event]:
        where = self._where.get(resource)
        async with aclosing(self._cluster.watch(resource, where, fields=fields)) as events:
            async for event in events:
                yield event

    def _situation(self) -> Situation:
        now = self._clock.boottime()
        return Situation(now, self._silence.begins, self._halts.reason, self._stopping)

    async def _plan_for_ever(self) -> None:
        if self._targets.by_api:
            while self._unsynced:  # what no NodeFault names is taken back, so all must be known
                self._changed.clear()
                await self._changed.wait()
            self._touched |= await recalled(self._rooms, self._clock)
        while True:
            self._changed.clear()
            if self._holdings.running():
                await self._learn()
            self._plan()
            self._note_rest()
            situation = self._situation()
            wait = self._holdings.next_moment(situation) - situation.now
            if wait == float("inf"):
                await self._changed.wait()
            else:
                await unless(self._changed, self._clock.sleep(wait))

    async def _learn(self) -> None:
        """Find the processes of all targets in one go, not one by one in their lanes."""
        targets = [target for held in self._holdings.running() for target in held.spec.targets]
        await self._targets.learn({bare(target.container_id) for target in targets})

    def _plan(self) -> None:
        """Decide about every fault, and tell every lane what it shall do."""
        ready = not self._unsynced
        wanted = {key: Wanted() for key in (*self._touched, *self._lanes)}
        undecided: set[LaneKey] = set()
        for judged in self._holdings.judge(self._situation(), ready=ready):
            for assignment in self._assigned(judged):
                if judged.standing is Standing.RUNS and not ready:
                    undecided.add(assignment.key)
                elif refusal := self._limits.refuses(judged, assignment, self._rooms.kinds):
                    place_refused(assignment, refusal, wanted, self._reports)
                else:
                    place(assignment, judged, wanted, self._reports, stopping=self._stopping)
        for key in wanted.keys() - undecided:
            wanted[key].live.sort(key=lambda assignment: assignment.order)
            self._order(key, wanted[key])
        busy = {(key.kind, key.target) for key in (*self._lanes, *undecided)}
        for kind, target in self._reports.leaving() - busy:
            self._reports.left(kind, target, ())

    def _assigned(self, judged: Judged) -> list[Assignment]:
        each = list(assigned(judged.held, self._rooms.kinds, self._journal.sealing_key))
        if judged.standing is not Standing.STOPS:
            for refused in each:
                if isinstance(refused, Refused):
                    self._reports.refused(judged.held.uid, refused.target, refused.why)
        return [assignment for assignment in each if isinstance(assignment, Assignment)]

    def _order(self, key: LaneKey, wanted: Wanted) -> None:
        lane = self._lanes.get(key)
        if lane is None:
            if self._group is None:
                raise AssertionError("plans are made while running")
            lane = self._lanes[key] = Lane(
                key,
                rooms=self._rooms,
                targets=self._targets,
                journal=self._journal,
                intents=self._intents,
                reports=self._reports,
                clock=self._clock,
                touched=self._touched.pop(key, None),
            )
            self._group.create_task(self._drive(lane))
        lane.want(wanted)

    async def _drive(self, lane: Lane) -> None:
        await self._driver.drive(lane)
        del self._lanes[lane.key]
        self._changed.set()

    def _note_rest(self) -> None:
        """Tell `stop` when every target is restored; it waits for no measurement."""
        if self._stopping and all(lane.restored for lane in self._lanes.values()):
            self._rested.set()
