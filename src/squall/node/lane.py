"""One target and one kind of fault: converged by one hand, so never twice at once."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from squall.clock import Clock
from squall.errors import InvalidFault, TargetGone, TryAgain, Unsupported
from squall.injection.contract import Live, Renewing
from squall.injection.world.target import Target
from squall.node.assignments import Assignment, Wanted
from squall.node.intents import Intents
from squall.node.journal import Journal, Touched
from squall.node.notes import LaneKey
from squall.node.proofs import Proofs
from squall.node.reports import Reports
from squall.node.rooms import Rooms
from squall.node.strikes import RepeatableStrikes, Strikes
from squall.node.targets import Finder, bare, last_known
from squall.node.waiting import unless

CONVERGE_SECONDS = 30.0
"""A converge that takes longer is given up and tried again."""

BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Lane:
    """Brings one target to what is wanted, and keeps looking whether it is felt.

    The agent calls `turn` again and again, waiting between for what it returned or for `woken`.
    """

    def __init__(  # noqa: PLR0913  (one argument for each it works with)
        self,
        key: LaneKey,
        *,
        rooms: Rooms,
        targets: Finder,
        journal: Journal,
        intents: Intents,
        reports: Reports,
        clock: Clock,
        touched: Touched | None = None,
    ) -> None:
        self.key, self.woken = key, asyncio.Event()
        self._rooms, self._targets = rooms, targets
        self._journal, self._intents = journal, intents
        self._reports, self._clock, self._touched = reports, clock, touched
        self._proofs = Proofs(lambda: rooms.probe(key.kind), clock, reports)
        self._strikes = (
            RepeatableStrikes(rooms, reports)
            if targets.by_api
            else Strikes(rooms, journal, reports)
        )
        self._wanted = Wanted()
        self._refused: list[Assignment] = []
        self._singly = False  # of several that never acted one is refused: each is tried by itself
        self._applied: tuple[Assignment, ...] = ()
        self._target: Target | None = None
        self._dirty = touched is not None
        self._renew_at: float | None = None
        self._failures = 0
        self._given_up = False

    @property
    def resting(self) -> bool:
        """True when nothing of ours is on the target, nothing is wanted and nothing is due."""
        wanted = self._wanted
        busy = wanted.live or wanted.strikes or self._proofs.due_in() is not None
        return self.restored and not busy

    @property
    def restored(self) -> bool:
        """True when nothing of ours is on the target; it may still be measured afterwards."""
        return not self._dirty and (self._touched is None or self._given_up)

    @property
    def hurries(self) -> bool:
        """True when the target is to be changed next, not only measured."""
        return bool(self._dirty or self._wanted.strikes or self._renew_in() == 0)

    def want(self, wanted: Wanted) -> None:
        """Take in what the target shall feel; wakes the lane when it differs."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._refused = [refused for refused in self._refused if refused in wanted.live]
            self._failures, self._given_up = 0, False
            self.look_again()

    def look_again(self) -> None:
        """Converge anew even if nothing else is wanted: the target may have changed."""
        self._dirty = True
        self.woken.set()

    async def turn(self) -> float | None:
        """Do what is due.

        Returns:
            Seconds until the next turn; None when there is none before `woken`.

        Raises:
            TryAgain: call `failed` and come again.
        """
        for strike in tuple(self._wanted.strikes):
            await self._strike(strike)
            with suppress(ValueError):  # what is wanted may have changed meanwhile
                self._wanted.strikes.remove(strike)
        if self._dirty or self._renew_in() == 0:
            await self._converge()
        elif self._target is None:
            self._proofs.clear()
        else:
            await self._measure(self._target)
        due = [moment for moment in (self._proofs.due_in(), self._renew_in()) if moment is not None]
        return 0.0 if self._dirty else min(due, default=None)

    def failed(self, message: str) -> float:
        """Report a turn that failed; returns seconds until the next."""
        self._dirty = True
        concerned = [*self._open(), *(ended.assignment for ended in self._wanted.ended)]
        for assignment in [*concerned, *self._wanted.strikes]:
            if assignment not in self._applied or assignment not in self._wanted.live:
                self._reports.failed(assignment, message)
        self._failures += 1
        return BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS)) - 1]

    def _renew_in(self) -> float | None:
        """Seconds until what the faults hang on is looked at again; None: they hang on nothing."""
        if self._renew_at is None:
            return None
        return max(0.0, self._renew_at - self._clock.boottime())

    def _open(self) -> tuple[Assignment, ...]:
        """What is wanted and not refused, oldest first."""
        return tuple(a for a in self._wanted.live if a not in self._refused)

    def _next(self) -> tuple[Assignment, ...]:
        """What of it is to act after this turn: all, or those that did and the oldest other."""
        wanted = self._open()
        fresh = [a for a in wanted if a not in self._applied] if self._singly else []
        return tuple(a for a in wanted if a not in fresh[1:])

    async def _converge(self) -> None:
        wanted, ended = self._next(), list(self._wanted.ended)
        self._dirty, self._renew_at = False, None
        if not wanted and not ended and not self._touched:
            return
        try:
            target = await self._reach(wanted)
        except TargetGone as gone:
            await self._let_go(wanted, str(gone))
        except (Unsupported, InvalidFault) as refusal:
            self._refuse(wanted, str(refusal))
            return
        else:
            self._target, self._applied = target, wanted
            for assignment in wanted:
                self._reports.injected(assignment)
        self._failures, self._singly = 0, len(wanted) < len(self._open())
        self._dirty = self._dirty or self._singly
        self._proofs.keep_only(self._applied)
        for assignment, reason in ended:
            self._reports.ended(assignment, reason)
        self._reports.left(self.key.kind, self.key.target, {a.source for a in self._applied})
        if not wanted and self._touched:
            self._forget()
            await self._look_afterwards([assignment for assignment, _ in ended])

    async def _reach(self, wanted: tuple[Assignment, ...]) -> Target:
        """Converge the target as it is now, following it when it turns out to be another."""
        tried: Target | None = None
        while True:
            try:
                target = await self._find(wanted)
            except TryAgain:
                if wanted or not self._touched:
                    raise
                if not await self._restored_without_process(self._touched):
                    raise
                return last_known(self._touched)
            if target == tried:
                raise TryAgain(f"{self.key.target}: ends while it is being changed")
            tried = target
            try:
                await self._apply(target, wanted)
            except TargetGone:
                self._targets.forget(target)
            else:
                return target

    async def _restored_without_process(self, touched: Touched) -> bool:
        """Take back what can be while no container of the pod runs; was that all?"""
        try:
            await self._call(last_known(touched), ())
        except TargetGone:
            return False
        return True

    async def _find(self, wanted: Sequence[Assignment]) -> Target:
        touched = self._touched
        known = [a.target for a in reversed(wanted)]
        known += [ended.assignment.target for ended in self._wanted.ended]
        container_id = bare(known[0].container_id) if known else ""
        host_network = any(target.host_network for target in known)
        if touched and not container_id:
            container_id, host_network = touched.container_id, touched.host_network
        return await self._targets.find(self.key, container_id, host_network=host_network)

    async def _apply(self, target: Target, wanted: tuple[Assignment, ...]) -> None:
        await self._proofs.before(target, wanted)
        intent = Touched(
            self.key, target.container_id, target.pid, target.started, target.host_network,
            tuple(assignment.source for assignment in wanted),
        )  # fmt: skip
        if intent != self._touched:
            await self._intend(intent)
        await self._call(target, wanted)

    async def _intend(self, intent: Touched) -> None:
        """Write down what is about to be; taking back alone waits for no disk."""
        try:
            await self._intents.write(intent)
        except TryAgain:
            known = self._touched.sources if self._touched else ()
            if not known or not set(intent.sources) <= set(known):
                raise
        self._touched = intent

    def _forget(self) -> None:
        """Nothing of ours is there any more; to take it back once more would do no harm."""
        with suppress(TryAgain):
            self._journal.restored(self.key)
        self._touched = None

    async def _call(self, target: Target, wanted: Sequence[Assignment]) -> None:
        injector = self._rooms.injector(self.key.kind)
        live = [Live(one.source, one.fault, one.secrets) for one in wanted]
        if isinstance(injector, Renewing) and (seconds := injector.again_after(live)) is not None:
            self._renew_at = self._clock.boottime() + seconds
        try:
            async with asyncio.timeout(CONVERGE_SECONDS):
                await injector.converge(target, live, self._journal.memory(self.key))
        except TimeoutError as slow:
            message = f"{self.key.target}: not done within {CONVERGE_SECONDS:g} s; tried again"
            raise TryAgain(message) from slow

    async def _let_go(self, wanted: Sequence[Assignment], message: str) -> None:
        """Forget a target that is gone, after taking back what was done outside of it."""
        if self._touched:
            with suppress(TargetGone, Unsupported):
                await self._call(last_known(self._touched), ())
            self._forget()
        self._target, self._applied = None, ()
        for assignment in wanted:
            self._reports.gone(assignment, message)
            self._refused.append(assignment)

    def _refuse(self, wanted: Sequence[Assignment], message: str) -> None:
        """Leave out the fault that was never accepted, so that others act; find out which it is."""
        if not wanted:
            for assignment, _ in self._wanted.ended:
                self._reports.failed(assignment, f"could not be undone: {message}", final=True)
            self._given_up = True
            return
        self._dirty = True
        fresh = [a for a in wanted if a not in self._applied]
        if len(fresh) > 1:
            self._singly = True
            return
        culprit = next(iter(fresh), wanted[-1])
        self._refused.append(culprit)
        self._reports.failed(culprit, message, final=True)

    async def _strike(self, assignment: Assignment) -> None:
        if self._strikes.begun(assignment):
            self._strikes.recount(assignment)
            return
        try:
            target = await self._find([assignment])
        except TargetGone as gone:
            self._strikes.too_late(assignment, str(gone))
            return
        await self._proofs.before(target, [assignment])
        self._target = target
        if not await self._strikes.carry_out(assignment, target):
            self._proofs.drop(assignment)

    async def _measure(self, target: Target) -> None:
        try:
            felt = await unless(self.woken, self._proofs.measure(target))
        except TargetGone:
            self._targets.forget(target)
            felt = False
        if felt is False:
            self._dirty = bool(self._wanted.live)

    async def _look_afterwards(self, ended: Sequence[Assignment]) -> None:
        if self._target is not None:
            await unless(self.woken, self._proofs.after(self._target, ended))
