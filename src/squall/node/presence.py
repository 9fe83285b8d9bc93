"""A Lease for each node: whoever orders faults sees where an agent runs, and what it can do.

As kubelets do it for nodes. It costs one small write a minute.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping

from squall.api.cluster import LEASE, POD, ApiError, Cluster, NotFound, Object
from squall.api.metadata import ABILITIES, AGENT_COMPONENT, COMPONENT, SEALING_KEY
from squall.api.names import agent_lease_name
from squall.clock import Clock
from squall.node.doctor import Ability, Capabilities, Capability
from squall.telemetry import logger

RENEW_SECONDS = 60.0
LEASE_SECONDS = 180
"""An agent that was silent for so long does not run."""
RETRY_SECONDS = 5.0
LEAVE_SECONDS = 3.0
"""For saying so at the end; kubelet waits 30 s for all of it."""


class Presence:
    """Says for as long as it runs that there is an agent on a node.

    Args:
        cluster: the API.
        clock: time.
        namespace: of the installation.
        node_name: of this node; also what the Lease is held by.
        capabilities: tried once, before the first word.
        needs: of all fault kinds, as they name them.
        sealing_key: public; values of Secrets are sealed to it.
        pod: this agent's own, in the same namespace; its Lease goes with the pod's owner. Empty, or
            one that cannot be read: the Lease is nobody's.
    """

    def __init__(  # noqa: PLR0913  (one argument for each thing it tells)
        self,
        cluster: Cluster,
        clock: Clock,
        *,
        namespace: str,
        node_name: str,
        capabilities: Capabilities,
        needs: Iterable[str],
        sealing_key: str = "",
        pod: str = "",
    ) -> None:
        self._sealing_key = sealing_key
        self._cluster, self._clock, self._pod = cluster, clock, pod
        self._owners: list[Object] | None = None
        self._namespace, self._node_name = namespace, node_name
        self._capabilities, self._needs = capabilities, tuple(sorted(set(needs)))
        self._known = False

    async def run(self) -> None:
        """Try what the node can do, then tell again and again, until cancelled."""
        told = abilities(self._needs, await self._capabilities.examine(self._needs))
        while True:
            try:
                await self._tell(told)
            except ApiError as refused:
                logger(__name__).warning("Lease of this node not written: %s", refused)
                await self._clock.sleep(RETRY_SECONDS)
            else:
                self._known = True
                await self._clock.sleep(RENEW_SECONDS)

    def missing(self) -> str:
        """Name what it waits for; empty once those who order faults can know of this agent."""
        return "" if self._known else "the Lease of this node"

    async def leave(self) -> None:
        """Say that no agent runs here any more; who is not heard is found out by its silence."""
        self._known = False
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._cluster.delete(
                    LEASE, self._namespace, agent_lease_name(self._node_name)
                )
        except (ApiError, TimeoutError) as refused:
            logger(__name__).warning("Lease of this node not removed: %s", refused)

    async def _tell(self, told: str) -> None:
        name = agent_lease_name(self._node_name)
        if self._owners is None:
            self._owners = await self._found_owners()
        lease: Object = {
            "metadata": {
                "labels": {COMPONENT: AGENT_COMPONENT},
                "ownerReferences": self._owners,
                "annotations": {ABILITIES: told, SEALING_KEY: self._sealing_key},
            },
            "spec": {
                "holderIdentity": self._node_name,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": self._clock.now().isoformat(timespec="microseconds"),
            },
        }
        try:
            await self._cluster.patch(LEASE, self._namespace, name, lease)
        except NotFound:
            lease["metadata"] |= {"name": name, "namespace": self._namespace}
            await self._cluster.create(LEASE, lease)

    async def _found_owners(self) -> list[Object]:
        """Find what runs this agent: when it is uninstalled, an agent's own rights may go first."""
        if not self._pod:
            return []
        try:
            pod = await self._cluster.get(POD, self._namespace, self._pod)
        except ApiError as refused:
            logger(__name__).info("the Lease of this node is nobody's: %s", refused)
            return []
        named = pod["metadata"].get("ownerReferences") or ()
        return [{key: one[key] for key in ("apiVersion", "kind", "name", "uid")} for one in named]


def abilities(needs: Iterable[str], found: Mapping[str, Capability]) -> str:
    """Write down what a node can do; what nobody could try is missing."""
    unknown = "this agent does not know how to try it"
    tried = {
        need: found.get(need) or Capability(need, Ability.MISSING, why=unknown) for need in needs
    }
    return json.dumps({need: _word(capability) for need, capability in tried.items()})


def _word(capability: Capability) -> str:
    if capability.ability is Ability.MISSING:
        return f"{capability.ability.value}: {capability.why}"
    return capability.ability.value
