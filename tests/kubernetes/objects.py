"""Objects to store, and an ear at a watch."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Self

from squall.api.cluster import Event, Object
from squall.api.metadata import ABILITIES, AGENT_COMPONENT, COMPONENT
from squall.api.names import agent_lease_name
from squall.faults import kinds


def lease(namespace: str, name: str = "one", **metadata: object) -> Object:
    return {
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15},
    }


def node_fault(namespace: str, name: str = "one", node: str = "n1", **metadata: object) -> Object:
    experiment = {
        "kind": "NetworkChaos",
        "namespace": "default",
        "name": "delay",
        "uid": "u",
        "created": "2026-01-01T12:00:00Z",
    }
    return {
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {
            "nodeName": node,
            "experiment": experiment,
            "desiredPhase": "Run",
            "faults": {".": {"action": "delay"}},
            "targets": [{"id": "default/web", "selectorKey": ".", "podUid": "p"}],
        },
    }


def delay(namespace: str, name: str = "delay") -> Object:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "action": "delay",
            "mode": "one",
            "selector": {"namespaces": ["default"]},
            "delay": {"latency": "10ms"},
            "duration": "5m",
        },
    }


def names(objects: list[Object]) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]


class Follower:
    """Listens to a watch, line by line; closes it in the end."""

    def __init__(self, watch: AsyncIterator[Event]) -> None:
        self._watch = watch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._watch.aclose()

    async def next(self, number: int) -> list[str]:
        """Wait for so many lines, such as `ADDED web`."""
        async with asyncio.timeout(20):
            return [str(await self._line()) for _ in range(number)]

    async def _line(self) -> str:
        event = await anext(self._watch)
        name = event.object["metadata"]["name"] if event.object else ""
        return f"{event.change} {name}".strip()


def agent_lease(namespace: str, node: str) -> Object:
    """Write what an agent tells of a node that can do everything."""
    needs = {need for kind in kinds().values() for need in kind.needs}
    return {
        "metadata": {
            "name": agent_lease_name(node),
            "namespace": namespace,
            "labels": {COMPONENT: AGENT_COMPONENT},
            "annotations": {ABILITIES: json.dumps(dict.fromkeys(sorted(needs), "ok"))},
        },
        "spec": {"holderIdentity": node, "leaseDurationSeconds": 180},
    }
