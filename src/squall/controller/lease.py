"""The heartbeat that keeps faults alive, which is also what elects the one controller that acts.

Times, in parts of the lease L on which faults are: the leader renews every L/3 by one request, and
stops acting when it could not for L/2. Others watch. One takes over at once when the lease was
released or its holder's process has ended; else when it saw no renewal for 2/3 L: after the old
leader has stopped, and before agents that hear nothing heal their targets at L.

No moment that another clock wrote is compared with anything, so stepped clocks elect nobody.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

from squall.api.cluster import (
    LEASE,
    NAMESPACE,
    AlreadyExists,
    ApiError,
    Change,
    Cluster,
    Conflict,
    NotFound,
    Object,
)
from squall.clock import Clock
from squall.controller.holder import Tenure
from squall.orchestration.experiments.pods import Pod
from squall.telemetry import logger

LEASE_NAME = "squall-controller"
RENEWALS = 3
GIVES_UP_AFTER = 1 / 2
TAKES_OVER_AFTER = 2 / 3
RETRIES = 12
WATCH_RETRY_SECONDS = 5.0


class Leadership:
    """Holds or seeks the lease.

    A controller that comes back under its own identity goes on at once, so `identity` names the
    installation where only one can run at a time, and the pod where there may be several.

    Args:
        cluster: the API.
        clock: time.
        namespace: where the lease is.
        identity: who this is.
        lease_seconds: L.
        changed: called whenever this controller begins or ceases to lead.
        pod_of: gives the pod of another holder; None where there is none or none is known.
    """

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        *,
        namespace: str,
        identity: str,
        lease_seconds: float,
        changed: Callable[[bool], None],
        pod_of: Callable[[str], Pod | None] = lambda _: None,
    ) -> None:
        self.leads = False
        self._cluster, self._clock = cluster, clock
        self._namespace, self._identity, self._seconds = namespace, identity, lease_seconds
        self._changed, self._pod_of = changed, pod_of
        self._renewed = clock.boottime()
        self._lease: Object | None = None
        """As it was last seen; None when it must be read."""
        self._seen_at = 0.0
        """Since when, in boot time, it has been the same."""
        self._tenure = Tenure()
        self._taken = False
        """Has this process taken it since it started?"""
        self._released = False
        self._turning = asyncio.Lock()
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Keep trying until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            while True:
                self._woken.clear()
                async with self._turning:
                    wait = await self._turn()
                await self._rest(wait)

    def look_again(self) -> None:
        """Have the holder's pod looked at: something about it has changed."""
        if not self.leads:
            self._woken.set()

    async def release(self) -> None:
        """Stop leading, and say so, so that another takes over at once; `run` is to be cancelled.

        When the API does not answer, the others find out by themselves.
        """
        led, self._released = self.leads, True
        self._lead(False)
        async with self._turning:
            if led and self._lease is not None:
                version = {"resourceVersion": self._lease["metadata"]["resourceVersion"]}
                patch = {"metadata": version, "spec": {"holderIdentity": None}}
                await self._within(self._seconds / RETRIES, self._patch(patch))

    async def _follow(self) -> None:
        """Learn of every change of the lease by the watch, which costs no request."""
        while True:
            try:
                events = self._cluster.watch(
                    LEASE, self._namespace, fields=f"metadata.name={LEASE_NAME}"
                )
                async with aclosing(events):
                    async for event in events:
                        if event.change is Change.DELETED:
                            self._lease = None
                            self._woken.set()
                        elif event.change is not Change.SYNCED:
                            self._saw(event.object)
            except ApiError as refused:
                logger(__name__).warning("the lease is not watched: %s", refused)
            await self._clock.sleep(WATCH_RETRY_SECONDS)

    def _saw(self, lease: Object) -> None:
        """Take in the lease as it is; a leader that sees another one there stops at once."""
        if self._lease is None or _version(lease) > _version(self._lease):
            self._lease, self._seen_at = lease, self._clock.boottime()
            if _holder(lease) != self._identity:
                self._lead(False)
                self._woken.set()

    async def _turn(self) -> float:
        """Try once; returns seconds until the next try is due."""
        if self._released:
            return self._seconds
        began = self._clock.boottime()
        won = await self._within(self._seconds / RETRIES, self._attempt())
        if won and not self._released:
            self._renewed, self._taken = began, True
            self._lead(True)
            return self._seconds / RENEWALS
        if won is False or began - self._renewed >= self._seconds * GIVES_UP_AFTER:
            self._lead(False)
        if won is None or self._lease is None:
            return self._seconds / RETRIES
        return self._seen_at + self._seconds * TAKES_OVER_AFTER - self._clock.boottime()

    async def _rest(self, seconds: float) -> None:
        woken = asyncio.create_task(self._woken.wait())
        alarm = asyncio.create_task(self._clock.sleep(seconds))
        try:
            await asyncio.wait({woken, alarm}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            alarm.cancel()

    def _lead(self, leads: bool) -> None:
        if leads != self.leads:
            self.leads = leads
            verb = "leads" if leads else "stands by"
            logger(__name__).info("%s %s", self._identity, verb)
            self._changed(leads)

    async def _within(
        self, seconds: float, attempt: Coroutine[Any, Any, bool | None]
    ) -> bool | None:
        """Await an attempt for so long; None when it did not end."""
        task = asyncio.create_task(attempt)
        alarm = asyncio.create_task(self._clock.sleep(seconds))
        try:
            await asyncio.wait({task, alarm}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            alarm.cancel()

    async def _attempt(self) -> bool | None:
        """Take or renew the lease; False when another holds it, None when nobody knows."""
        for _ in range(2):  # once more when it was changed meanwhile, by whomever
            if self._lease is None and (read := await self._read()) is not True:
                return read
            if self._lease is None or not self._free(self._lease):
                return False
            written = await self._patch(self._taking(self._lease))
            if written is not False:
                return written
        return False

    def _free(self, lease: Object) -> bool:
        """May this controller take the lease, or keep it?"""
        holder = _holder(lease)
        if holder in {"", self._identity}:
            return True
        if how := self._tenure.ended(lease, self._pod_of(holder)):
            logger(__name__).info("%s held the lease: %s", holder, how)
            return True
        return self._clock.boottime() - self._seen_at >= self._seconds * TAKES_OVER_AFTER

    async def _read(self) -> bool | None:
        """Read the lease, or make it; True once it is known."""
        try:
            self._saw(await self._cluster.get(LEASE, self._namespace, LEASE_NAME))
        except NotFound:
            return await self._create()
        except ApiError as silence:
            logger(__name__).warning("lease not read: %s", silence)
            return None
        return True

    async def _patch(self, patch: Object) -> bool | None:
        """Write the lease as it is known; False when somebody else was faster."""
        try:
            self._saw(await self._cluster.patch(LEASE, self._namespace, LEASE_NAME, patch))
        except (Conflict, NotFound):
            self._lease = None
            return False
        except ApiError as silence:
            logger(__name__).warning("lease not renewed: %s", silence)
            return None
        return True

    async def _create(self) -> bool | None:
        spec = {"acquireTime": self._moment(), "leaseTransitions": 0} | self._held()
        meta = {"name": LEASE_NAME, "namespace": self._namespace}
        lease = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": meta}
        space = {"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": {"name": self._namespace}}
        try:
            with suppress(ApiError):  # it is there mostly, and then nobody may have to make any
                await self._cluster.create(NAMESPACE, space)
            self._saw(await self._cluster.create(LEASE, {**lease, "spec": spec}))
        except AlreadyExists:
            return False
        except ApiError as silence:
            logger(__name__).warning("lease not created: %s", silence)
            return None
        return True

    def _taking(self, lease: Object) -> Object:
        """Make the patch that takes or renews it, if nobody writes first."""
        spec = self._held()
        if _holder(lease) != self._identity:
            before = (lease.get("spec") or {}).get("leaseTransitions") or 0
            spec |= {"acquireTime": self._moment(), "leaseTransitions": before + 1}
        elif not self._taken:  # by an earlier life of this one: who watches must not mistake us
            spec |= {"acquireTime": self._moment()}
        return {
            "metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]},
            "spec": spec,
        }

    def _held(self) -> Object:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._seconds)),
            "renewTime": self._moment(),
        }

    def _moment(self) -> str:
        return self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _holder(lease: Object) -> str:
    return (lease.get("spec") or {}).get("holderIdentity") or ""


def _version(lease: Object) -> int:
    return int(lease["metadata"]["resourceVersion"])
