"""Taking an installation out of a cluster, so that nothing of it is left."""

from collections.abc import Sequence
from contextlib import suppress

import yaml

from squall.api.cluster import (
    NAMESPACE,
    POD,
    ApiError,
    Cluster,
    NotFound,
    Object,
    Resource,
)
from squall.api.metadata import PART_OF, SQUALL
from squall.api.policy import Policy
from squall.clock import Clock
from squall.errors import TryAgain
from squall.installation.healing import LOOK_SECONDS, Healer, Reach
from squall.installation.manifests import POLICY_CONFIG_MAP, POLICY_KEY, objects
from squall.installation.progress import Progress
from squall.installation.resources import (
    CONFIG_MAP,
    STAGES,
    called,
    resource_of,
)
from squall.installation.settings import Settings
from squall.installation.standing import FORBIDDEN, check_installer, installations

PROCESSES = "processes"
"""The stage whose end takes the nodes' help."""


class Uninstaller:
    """Heals, then removes, in the reverse order of the installation.

    Args:
        cluster: where from.
        clock: waits are measured on it.
        progress: is told what happens.
        namespace: of the installation.
    """

    def __init__(self, cluster: Cluster, clock: Clock, progress: Progress, namespace: str) -> None:
        self._cluster, self._clock, self._progress = cluster, clock, progress
        self._namespace = namespace

    async def heal(self, *, timeout_seconds: float, force: bool = False) -> None:
        """Take every fault back and remove nothing else; what Helm asks for before it removes."""
        healer = Healer(self._cluster, self._clock, self._progress, await self._reach())
        await healer.heal(timeout_seconds=timeout_seconds, force=force)
        await healer.release()

    async def uninstall(
        self, *, keep_definitions: bool, timeout_seconds: float, force: bool = False
    ) -> None:
        """Take every fault back, then everything that was installed away.

        Args:
            keep_definitions: leave the definitions of kinds, and whatever is stored of them.
            timeout_seconds: how long each step may take.
            force: go on where a node or the controller does not answer.

        Raises:
            TryAgain: a step did not end in time; says what is left and what to do.
            Unsupported: Helm keeps this installation.
        """
        await check_installer(self._cluster, self._namespace)
        reach = await self._reach()
        healer = Healer(self._cluster, self._clock, self._progress, reach)
        await healer.heal(timeout_seconds=timeout_seconds, force=force)
        found = await self._installed(reach)
        for stage, resources in reversed(STAGES):
            removed = [(r, o) for r, o in found if r in resources]
            if stage == "definitions of kinds":
                await healer.release()
                if keep_definitions or not reach.alone:
                    why = "as asked" if keep_definitions else "another installation needs them"
                    self._progress.done(f"the definitions of kinds stay, {why}")
                    continue
            if stage == "namespace":
                removed = await self._own_namespace()
            await self._remove(stage, removed, timeout_seconds, force=force)
        self._progress.done("nothing of this installation is left")

    async def _reach(self) -> Reach:
        others = [
            one
            for one in await installations(self._cluster)
            if one["metadata"]["namespace"] != self._namespace
        ]
        target = (await self._policy()).target_namespace
        return Reach(self._namespace, target, alone=not others)

    async def _policy(self) -> Policy:
        try:
            found = await self._cluster.get(CONFIG_MAP, self._namespace, POLICY_CONFIG_MAP)
        except NotFound:
            return Policy()
        return Policy.model_validate(yaml.safe_load(found["data"][POLICY_KEY]) or {})

    async def _installed(self, reach: Reach) -> list[tuple[Resource, Object]]:
        """Find what the manifests name, and what an earlier version left with our label."""
        policy = Policy(target_namespace=reach.target_namespace)
        named = {
            (resource_of(o), o["metadata"].get("namespace"), o["metadata"]["name"])
            for o in objects(Settings(namespace=self._namespace, policy=policy))
        }
        found = []
        for resource in (r for _, resources in STAGES for r in resources):
            if resource == NAMESPACE:
                continue
            for obj in await self._labelled(resource):
                metadata = obj["metadata"]
                key = (resource, metadata.get("namespace"), metadata["name"])
                inside = metadata.get("namespace") == self._namespace
                if key in named or inside or (reach.alone and not resource.namespaced):
                    found.append((resource, obj))
        return found

    async def _labelled(self, resource: Resource) -> Sequence[Object]:
        try:
            return await self._cluster.list(resource, labels=f"{PART_OF}={SQUALL}")
        except NotFound:
            return ()
        except ApiError as refused:
            if refused.code != FORBIDDEN:
                raise
            return await self._cluster.list(resource, self._namespace, labels=f"{PART_OF}={SQUALL}")

    async def _own_namespace(self) -> list[tuple[Resource, Object]]:
        try:
            namespace = await self._cluster.get(NAMESPACE, None, self._namespace)
        except NotFound:
            return []
        if (namespace["metadata"].get("labels") or {}).get(PART_OF) == SQUALL:
            return [(NAMESPACE, namespace)]
        self._progress.done(f"namespace/{self._namespace} stays: it was there before")
        return []

    async def _remove(
        self,
        stage: str,
        found: Sequence[tuple[Resource, Object]],
        timeout_seconds: float,
        *,
        force: bool,
    ) -> None:
        for resource, obj in found:
            metadata = obj["metadata"]
            await self._delete(resource, metadata.get("namespace"), metadata["name"])
        ends = self._clock.boottime() + timeout_seconds
        while left := await self._left(stage, found):
            if self._clock.boottime() >= ends:
                if force and stage == PROCESSES:
                    await self._give_up_on_pods(timeout_seconds)
                    return
                raise TryAgain(
                    f"{stage}: after {timeout_seconds:g} s there is still {', '.join(left)}; "
                    "run this again to go on"
                )
            self._progress.waiting(f"{stage}: waiting for {', '.join(left)}")
            await self._clock.sleep(LOOK_SECONDS)

    async def _left(self, stage: str, found: Sequence[tuple[Resource, Object]]) -> list[str]:
        left = []
        for resource, obj in found:
            metadata = obj["metadata"]
            try:
                there = await self._cluster.get(
                    resource, metadata.get("namespace"), metadata["name"]
                )
            except NotFound:
                continue
            if there["metadata"]["uid"] == metadata["uid"]:
                left.append(called(resource, metadata["name"]))
        if stage == PROCESSES:
            # Agents restore once more as they end, and need their rights for as long.
            left += [called(POD, name) for name in await self._pods()]
        return left

    async def _pods(self) -> list[str]:
        pods = await self._cluster.list(POD, self._namespace, labels=f"{PART_OF}={SQUALL}")
        return [pod["metadata"]["name"] for pod in pods]

    async def _give_up_on_pods(self, timeout_seconds: float) -> None:
        """Have the API forget pods whose node says nothing; they end when it hears of it."""
        for name in await self._pods():
            with suppress(NotFound):
                await self._cluster.delete(POD, self._namespace, name, grace_seconds=0)
            told = f"its node did not end it in {timeout_seconds:g} s"
            self._progress.done(f"{called(POD, name)} forgotten because of --force: {told}")

    async def _delete(self, resource: Resource, namespace: str | None, name: str) -> None:
        try:
            await self._cluster.delete(resource, namespace, name)
        except NotFound:
            return
        self._progress.done(f"{called(resource, name)} deleted")
