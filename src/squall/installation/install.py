"""Putting an installation into a cluster, again and again: each run brings it up to date."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from squall.api.cluster import POD, ApiError, Cluster, NotFound, Object
from squall.api.metadata import PART_OF, SQUALL
from squall.clock import Clock
from squall.errors import InvalidFault, SquallError, TryAgain
from squall.installation.manifests import POD_SECURITY, PRIVILEGED
from squall.installation.progress import Progress
from squall.installation.readiness import troubles, unready
from squall.installation.resources import (
    CUSTOM_RESOURCE_DEFINITION,
    DAEMON_SET,
    DEPLOYMENT,
    NAMESPACE,
    called,
    resource_of,
)
from squall.installation.standing import check_installer, foreign_definitions

MANAGER = "squall"
"""Owner of the fields that are applied; controllers and people own theirs beside it."""
LOOK_SECONDS = 0.5
"""Between two looks at what is being waited for."""


@dataclass(slots=True)
class Outcome:
    """What came of one run."""

    created: int = 0
    configured: int = 0
    unchanged: int = 0

    def __str__(self) -> str:
        """As `18 created, 0 configured, 0 unchanged`."""
        return f"{self.created} created, {self.configured} configured, {self.unchanged} unchanged"


class Installer:
    """Applies objects in their order, and waits until what they describe runs.

    Args:
        cluster: where to.
        clock: waits are measured on it.
        progress: is told what happens.
    """

    def __init__(self, cluster: Cluster, clock: Clock, progress: Progress) -> None:
        self._cluster, self._clock, self._progress = cluster, clock, progress

    async def check(self, namespace: str, objects: Sequence[Object], *, adopt: bool) -> None:
        """Make sure that nobody else's things would be overwritten; changes nothing.

        Args:
            namespace: of the installation.
            objects: what is about to be applied.
            adopt: take over definitions of kinds that somebody else put there.

        Raises:
            InvalidFault: somebody else's definitions are there; says what taking over means.
            Unsupported: Helm keeps this installation.
        """
        await check_installer(self._cluster, namespace)
        if adopt:
            return
        wanted = [o for o in objects if resource_of(o) == CUSTOM_RESOURCE_DEFINITION]
        if foreign := await foreign_definitions(self._cluster, wanted):
            raise InvalidFault(
                f"the cluster has {', '.join(foreign)} of somebody else, most likely of Chaos "
                "Mesh. Two controllers would act on the same experiments. Uninstall Chaos Mesh "
                "first (its definitions too), or let Squall take the definitions over with "
                "--adopt-crds: experiments that are there stay and Squall acts on them, the "
                "definitions are replaced by its own, and `squall uninstall` will remove them"
            )

    async def apply(self, objects: Sequence[Object], *, timeout_seconds: float) -> Outcome:
        """Apply every object, and wait until new kinds are served before going on.

        Raises:
            TryAgain: a kind is still not served after the timeout, or the namespace is still going.
            SquallError: the API refused an object; names it and what to do.
        """
        outcome = Outcome()
        defined = [o for o in objects if resource_of(o) == CUSTOM_RESOURCE_DEFINITION]
        for position, obj in enumerate(objects):
            if resource_of(obj) == NAMESPACE:
                await self._ended(obj, timeout_seconds)
                if await self._kept(obj):
                    outcome.unchanged += 1
                    continue
            await self._apply(obj, outcome, position)
            if defined and obj is defined[-1]:
                await self._established(defined, timeout_seconds)
        return outcome

    async def ready(self, namespace: str, *, timeout_seconds: float) -> None:
        """Wait until controller and agents are ready.

        Raises:
            TryAgain: they are not after the timeout; says what is in the way of each pod.
        """
        ends = self._clock.boottime() + timeout_seconds
        while lacking := await self._lacking(namespace):
            if self._clock.boottime() >= ends:
                pods = await self._cluster.list(POD, namespace, labels=f"{PART_OF}={SQUALL}")
                lines = [*lacking, *troubles(pods)]
                raise TryAgain(
                    f"not ready after {timeout_seconds:g} s:\n  "
                    + "\n  ".join(lines)
                    + "\nEverything is applied; run this again to go on waiting, or look with "
                    f"`kubectl -n {namespace} describe pods`"
                )
            self._progress.waiting("; ".join(lacking))
            await self._clock.sleep(LOOK_SECONDS)

    async def _lacking(self, namespace: str) -> list[str]:
        found = [
            obj
            for resource in (DEPLOYMENT, DAEMON_SET)
            for obj in await self._cluster.list(resource, namespace, labels=f"{PART_OF}={SQUALL}")
        ]
        return [words for obj in found if (words := unready(obj))]

    async def _ended(self, wanted: Object, timeout_seconds: float) -> None:
        """Wait for the end of a namespace that is being deleted: nothing can be put into it."""
        ends, name = self._clock.boottime() + timeout_seconds, wanted["metadata"]["name"]
        while "deletionTimestamp" in ((await self._before(wanted)) or wanted)["metadata"]:
            if self._clock.boottime() >= ends:
                raise TryAgain(
                    f"namespace {name} is still being deleted after {timeout_seconds:g} s; "
                    f"`kubectl describe namespace {name}` says what holds it"
                )
            self._progress.waiting(f"namespace {name} is being deleted")
            await self._clock.sleep(LOOK_SECONDS)

    async def _kept(self, wanted: Object) -> bool:
        """Leave a namespace that somebody else made as it is: what is not ours is not removed."""
        there = await self._before(wanted)
        labels = (there["metadata"].get("labels") or {}) if there else {}
        if there is None or labels.get(PART_OF) == SQUALL:
            return False
        name = called(NAMESPACE, there["metadata"]["name"])
        self._progress.done(f"{name} was there before; it is kept as it is")
        level = labels.get(POD_SECURITY, PRIVILEGED)
        if level != PRIVILEGED:
            told = f"agents will not start in it: it has the label {POD_SECURITY}={level}"
            self._progress.done(f"{name}: {told}, and they need {PRIVILEGED}")
        return True

    async def _apply(self, obj: Object, outcome: Outcome, position: int) -> None:
        resource, metadata = resource_of(obj), obj["metadata"]
        name = called(resource, metadata["name"])
        try:
            before = await self._before(obj)
            after = await self._cluster.apply(resource, obj, manager=MANAGER)
        except ApiError as refused:
            raise SquallError(
                f"{name}: {refused}. {position} objects before it were applied; run this again "
                "once that is put right, or take them away with `squall uninstall`"
            ) from refused
        if before is None:
            outcome.created += 1
            self._progress.done(f"{name} created")
        elif _same(obj, before, after):
            outcome.unchanged += 1
            self._progress.done(f"{name} unchanged")
        else:
            outcome.configured += 1
            self._progress.done(f"{name} configured")

    async def _before(self, obj: Object) -> Object | None:
        try:
            metadata = obj["metadata"]
            where = metadata.get("namespace")
            return await self._cluster.get(resource_of(obj), where, metadata["name"])
        except NotFound:
            return None

    async def _established(self, defined: Sequence[Object], timeout_seconds: float) -> None:
        ends = self._clock.boottime() + timeout_seconds
        names = {obj["metadata"]["name"] for obj in defined}
        while missing := sorted(names - await self._served()):
            if self._clock.boottime() >= ends:
                raise TryAgain(
                    f"the cluster does not serve {', '.join(missing)} after {timeout_seconds:g} s; "
                    f"`kubectl describe crd {missing[0]}` says why"
                )
            self._progress.waiting(f"{len(missing)} kinds are not served yet")
            await self._clock.sleep(LOOK_SECONDS)

    async def _served(self) -> set[str]:
        found = await self._cluster.list(CUSTOM_RESOURCE_DEFINITION, labels=f"{PART_OF}={SQUALL}")
        return {obj["metadata"]["name"] for obj in found if _holds(obj, "Established")}


def _holds(obj: Mapping[str, object], condition: str) -> bool:
    status = obj.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    return any(c["type"] == condition and c["status"] == "True" for c in conditions or ())


def _same(wanted: Object, before: Object, after: Object) -> bool:
    """Compare what is ours: others write their fields meanwhile, such as who holds a Lease."""
    ours = {key: value for key, value in wanted.items() if key != "status"}
    if _fields(before) != _fields(after):
        return False
    same: bool = _cut(before, ours) == _cut(after, ours)
    return same


def _cut(value: Any, by: Any) -> Any:  # noqa: ANN401  (any JSON value)
    """Keep of `value` the fields that `by` has; lists are kept whole."""
    if isinstance(value, dict) and isinstance(by, dict):
        return {name: _cut(value[name], part) for name, part in by.items() if name in value}
    return value


def _fields(obj: Object) -> Any:  # noqa: ANN401  (any JSON value)
    entries = obj["metadata"].get("managedFields") or ()
    mine = (e for e in entries if (e.get("manager"), e.get("operation")) == (MANAGER, "Apply"))
    return next((entry.get("fieldsV1") for entry in mine), None)
