"""Kubernetes Events about experiments, written beside the work so that nothing waits for them."""

import asyncio
from collections import Counter
from datetime import datetime

from squall.api.cluster import EVENT, ApiError, Cluster, Object
from squall.api.metadata import EVENT_FIELD_PREFIX, EVENT_TYPE
from squall.clock import Clock
from squall.orchestration.experiments.announcements import LONGEST_MESSAGE
from squall.orchestration.experiments.facts import Announcement
from squall.telemetry import logger

_MOST_WAITING = 10_000


class Recorder:
    """Emits events in order; one that the API refuses is logged and forgotten."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster, self._clock = cluster, clock
        self._waiting: asyncio.Queue[Object] = asyncio.Queue(_MOST_WAITING)
        self._last_nanoseconds = 0
        self.emitted: Counter[tuple[str, str, str]] = Counter()
        """Events by type, reason and namespace."""

    def emit(self, about: Object, said: Announcement) -> None:
        """Have an event written soon.

        Args:
            about: the experiment.
            said: what to say of it.
        """
        try:
            self._waiting.put_nowait(self._event(about, said))
        except asyncio.QueueFull:
            logger(__name__).warning("dropped an event: %s", said.message)

    async def run(self) -> None:
        """Write events until cancelled."""
        while True:
            event = await self._waiting.get()
            try:
                await self._cluster.create(EVENT, event)
            except ApiError as refused:
                logger(__name__).warning("event %r not written: %s", event["message"], refused)
            else:
                namespace = event["metadata"]["namespace"]
                self.emitted[event["type"], event["reason"], namespace] += 1
            # A cluster in this process answers without waiting: let those go first who work.
            await asyncio.sleep(0)

    def _event(self, about: Object, said: Announcement) -> Object:
        meta, now = about["metadata"], self._clock.now()
        namespace = meta.get("namespace") or "default"
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        annotations = {EVENT_TYPE: _kebab(said.reason)}
        annotations |= {f"{EVENT_FIELD_PREFIX}{key}": text for key, text in said.fields.items()}
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                "name": f"{meta['name']}.{self._unique(now):x}",
                "namespace": namespace,
                "annotations": annotations,
            },
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": namespace,
                "name": meta["name"],
                "uid": meta["uid"],
                "resourceVersion": meta.get("resourceVersion", ""),
            },
            "type": said.type,
            "reason": said.reason,
            "message": said.message[:LONGEST_MESSAGE],
            "source": {"component": said.component},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }

    def _unique(self, now: datetime) -> int:
        """Nanoseconds since the epoch, never the same twice."""
        nanoseconds = int(now.timestamp() * 1_000_000) * 1000
        self._last_nanoseconds = max(nanoseconds, self._last_nanoseconds + 1)
        return self._last_nanoseconds


def _kebab(name: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).removeprefix("-")
