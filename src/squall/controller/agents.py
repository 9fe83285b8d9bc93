"""Which nodes have an agent, and what each can do: by the Leases that agents renew.

No moment that another clock wrote is compared with anything: an agent is gone when its Lease has
not changed for as long as the Lease itself says, by the clock of this host.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson

from squall.api.cluster import LEASE, Object
from squall.api.metadata import ABILITIES, AGENT_COMPONENT, COMPONENT, SEALING_KEY
from squall.clock import Clock
from squall.controller.cache import Cache, Name, name_of
from squall.orchestration.experiments.agents import Abilities

LEASE_SECONDS = 180.0
"""Where a Lease does not say how long it is good for."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an agent tells of itself, without when."""

    node: str
    abilities: Abilities
    sealing_key: str
    """Public; empty where it tells none."""
    life: int
    """Grows when an agent tells again that was taken for gone: that is news, too."""


@dataclass(slots=True)
class _Heard:
    until: float
    """In boot time."""
    life: int = 0


class Agents:
    """The Leases of agents.

    Args:
        clock: whose boot time judges silence.
        changed: called when an agent came, went, or can do something else.
    """

    def __init__(self, clock: Clock, changed: Callable[[Object], None]) -> None:
        self._clock = clock
        self._heard: dict[Name, _Heard] = {}
        self.cache: Cache[Told | None] = Cache(LEASE, self._read, changed, whole=False)
        """None in place of Leases of others."""

    def known(self) -> Mapping[str, Abilities]:
        """Give what each node with an agent can do, by its name, as of now."""
        now = self._clock.boottime()
        return {
            told.node: told.abilities
            for name, told in self.cache.values.items()
            if told is not None and now < self._heard[name].until
        }

    def sealing_key(self, node: str) -> str:
        """Give the key that the agent of a node has told; empty where none is known."""
        told = (one for one in self.cache.values.values() if one is not None and one.node == node)
        return next((one.sealing_key for one in told), "")

    def _read(self, lease: Object) -> Told | None:
        """Read a Lease; called once for each change of it, which is how an agent is heard."""
        metadata, spec = lease["metadata"], lease.get("spec") or {}
        node = spec.get("holderIdentity") or ""
        if (metadata.get("labels") or {}).get(COMPONENT) != AGENT_COMPONENT or not node:
            return None
        now = self._clock.boottime()
        heard = self._heard.setdefault(name_of(lease), _Heard(until=now))
        if now >= heard.until:
            heard.life += 1
        heard.until = now + float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)
        key = (metadata.get("annotations") or {}).get(SEALING_KEY) or ""
        return Told(node, _abilities(metadata), str(key), heard.life)


def _abilities(metadata: Object) -> Abilities:
    text = (metadata.get("annotations") or {}).get(ABILITIES) or "{}"
    try:
        read = orjson.loads(text)
    except orjson.JSONDecodeError:
        read = None
    if not isinstance(read, dict):
        return {}  # an agent that says nothing that can be read can do nothing that is known
    return {str(need): str(word) for need, word in read.items()}
