"""The heartbeat that keeps faults alive, which is also what elects the one controller that acts.

Times, in parts of the lease L on which faults are: the leader renews every L/3, and stops acting
when it could not for L/2. Another takes over when it saw no renewal for 2/3 L: after the old
leader has stopped, and before agents that hear nothing heal their targets at L.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from squall.api.cluster import (
    LEASE,
    NAMESPACE,
    AlreadyExists,
    ApiError,
    Cluster,
    Conflict,
    NotFound,
    Object,
)
from squall.clock import Clock
from squall.telemetry import logger

LEASE_NAME = "squall-controller"
RENEWALS = 3
GIVES_UP_AFTER = 1 / 2
TAKES_OVER_AFTER = 2 / 3
RETRIES = 12


class Leadership:
    """Holds or seeks the lease.

    A controller that comes back under its own identity goes on at once, so `identity` names the
    installation where only one can run at a time, and the pod where there may be several.
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
    ) -> None:
        self.leads = False
        self._cluster, self._clock = cluster, clock
        self._namespace, self._identity, self._seconds = namespace, identity, lease_seconds
        self._changed = changed
        self._renewed = clock.boottime()
        self._seen: tuple[str, float] | None = None
        """Version of somebody else's lease, and since when it has been the same."""

    async def run(self) -> None:
        """Keep trying until cancelled."""
        while True:
            began = self._clock.boottime()
            won = await self._within(self._seconds / RETRIES, self._attempt())
            if won:
                self._renewed = began
                self._lead(True)
            elif won is False or began - self._renewed >= self._seconds * GIVES_UP_AFTER:
                self._lead(False)
            await self._clock.sleep(self._seconds / (RENEWALS if won else RETRIES))

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
        try:
            lease = await self._cluster.get(LEASE, self._namespace, LEASE_NAME)
        except NotFound:
            return await self._create()
        except ApiError as silence:
            logger(__name__).warning("lease not read: %s", silence)
            return None
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in {"", self._identity} and not self._expired(lease):
            return False
        if holder != self._identity:
            spec = spec | {
                "acquireTime": self._moment(),
                "leaseTransitions": (spec.get("leaseTransitions") or 0) + 1,
            }
        version = {"resourceVersion": lease["metadata"]["resourceVersion"]}
        patch = {"metadata": version, "spec": spec | self._held()}
        try:
            await self._cluster.patch(LEASE, self._namespace, LEASE_NAME, patch)
        except Conflict:
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
            with suppress(AlreadyExists):
                await self._cluster.create(NAMESPACE, space)
            await self._cluster.create(LEASE, {**lease, "spec": spec})
        except AlreadyExists:
            return False
        except ApiError as silence:
            logger(__name__).warning("lease not created: %s", silence)
            return None
        return True

    def _expired(self, lease: Object) -> bool:
        """Has somebody else's lease stood still for too long? By our own clock alone."""
        version, now = lease["metadata"]["resourceVersion"], self._clock.boottime()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        return now - self._seen[1] >= self._seconds * TAKES_OVER_AFTER

    def _held(self) -> Object:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._seconds)),
            "renewTime": self._moment(),
        }

    def _moment(self) -> str:
        return self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
