"""Keeps the Secret, the configurations and what this replica serves in step with each other.

Every replica does so: whoever comes first wins, the others see what it wrote.
"""

import asyncio
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from squall.api.cluster import (
    SECRET,
    AlreadyExists,
    ApiError,
    Change,
    Cluster,
    Conflict,
    NotFound,
    Object,
    Resource,
)
from squall.certificates import Issued
from squall.clock import Clock
from squall.telemetry import logger
from squall.webhook.rotation import SERVED, SERVED_KEY, TRUSTED, Step, carry_out, decide

MUTATING, VALIDATING = (
    Resource(
        "admissionregistration.k8s.io",
        "v1",
        f"{kind}WebhookConfiguration",
        f"{kind.lower()}webhookconfigurations",
        namespaced=False,
    )
    for kind in ("Mutating", "Validating")
)

_LOG = logger(__name__)
_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where callers find the webhook."""

    namespace: str
    """Of the installation."""
    service: str = "squall-webhook"
    """Name of the Service, of the Secret, and of both configurations."""
    more_hosts: tuple[str, ...] = ()
    """Other names and addresses than the Service's, where a configuration uses an address."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every name that the certificate is for."""
        return (f"{self.service}.{self.namespace}.svc", *self.more_hosts)


class Renewal:
    """Follows the objects, and writes what is missing in them.

    Args:
        cluster: where they are.
        clock: when certificates expire.
        place: whose they are.
        serve: called with each certificate that this replica shall show from now on.
    """

    def __init__(
        self, cluster: Cluster, clock: Clock, place: Place, serve: Callable[[Issued], None]
    ) -> None:
        self.ready = asyncio.Event()
        """Set once there is a certificate."""
        self._cluster, self._clock, self._place, self._serve = cluster, clock, place, serve
        self._seen: dict[Resource, Object | None] = {}
        self._news = asyncio.Event()
        self._served: Issued | None = None

    async def run(self) -> None:
        """Go on until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(SECRET, self._place.namespace))
            tasks.create_task(self._follow(MUTATING, None))
            tasks.create_task(self._follow(VALIDATING, None))
            while True:
                await self._look()

    async def _look(self) -> None:
        """Do what is to be done now, and wait until there is more."""
        self._news.clear()
        wait = _RETRY_SECONDS
        try:
            if SECRET in self._seen:
                wait = await self._keep()
        except (Conflict, AlreadyExists, NotFound):
            await self._read_again()  # somebody was faster
            wait = 0.1
        except ApiError as refused:
            _LOG.warning("the webhook's certificate waits for the API: %s", refused)
        await self._rest(wait)

    async def _keep(self) -> float:
        """Bring everything in step; gives the seconds until something is due."""
        secret, now = self._seen[SECRET], self._clock.now()
        data = _data(secret)
        decision = decide(data, self._place.hosts, now)
        if decision.step is not Step.NOTHING:
            wanted = carry_out(decision.step, data, self._place.hosts, now)
            self._seen[SECRET] = secret = await self._write(secret, wanted)
            _LOG.info("certificate of the webhook: %s", decision.step)
            data = _data(secret)
            decision = decide(data, self._place.hosts, now)
        # Trusted first, served afterwards.
        for resource in (MUTATING, VALIDATING):
            await self._have_trusted(resource, data[TRUSTED])
        issued = Issued(data[SERVED], data[SERVED_KEY])
        if issued != self._served:
            self._serve(issued)
            self._served = issued
            self.ready.set()
        return max(0.1, (decision.again - self._clock.now()).total_seconds())

    async def _write(self, secret: Object | None, data: dict[str, bytes]) -> Object:
        place = self._place
        written: dict[str, str | None] = {
            name: b64encode(value).decode() for name, value in data.items()
        }
        if secret is None:
            meta = {"name": place.service, "namespace": place.namespace}
            obj = {"metadata": meta, "type": "kubernetes.io/tls", "data": written}
            return await self._cluster.create(SECRET, obj)
        gone: dict[str, str | None] = dict.fromkeys(secret.get("data") or {})
        version = {"resourceVersion": secret["metadata"]["resourceVersion"]}
        patch = {"metadata": version, "data": gone | written}
        return await self._cluster.patch(SECRET, place.namespace, place.service, patch)

    async def _have_trusted(self, resource: Resource, bundle: bytes) -> None:
        """Name the authorities in a configuration; no other installation's."""
        found = self._seen.get(resource)
        if found is None:
            return
        wanted = b64encode(bundle).decode()
        before = found.get("webhooks") or []
        after = [self._with_bundle(webhook, wanted) for webhook in before]
        if after == before:
            return
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        patch = {"metadata": version, "webhooks": after}
        _LOG.info("%s %s: new caBundle", resource.kind, self._place.service)
        self._seen[resource] = await self._cluster.patch(resource, None, self._place.service, patch)

    def _with_bundle(self, webhook: dict[str, Any], bundle: str) -> dict[str, Any]:
        client = webhook["clientConfig"]
        service = client.get("service")
        ours = (self._place.service, self._place.namespace)
        if service and (service["name"], service["namespace"]) != ours:
            return webhook
        return webhook | {"clientConfig": client | {"caBundle": bundle}}

    async def _read_again(self) -> None:
        for resource in tuple(self._seen):
            namespace = self._place.namespace if resource.namespaced else None
            try:
                found = await self._cluster.get(resource, namespace, self._place.service)
            except NotFound:
                self._seen[resource] = None
            except ApiError:
                return  # the watch will tell
            else:
                self._seen[resource] = found

    async def _follow(self, resource: Resource, namespace: str | None) -> None:
        name = self._place.service
        while True:
            events = self._cluster.watch(resource, namespace, fields=f"metadata.name={name}")
            try:
                async for event in events:
                    if event.change is Change.SYNCED:
                        self._seen.setdefault(resource, None)
                    else:
                        gone = event.change is Change.DELETED
                        self._seen[resource] = None if gone else event.object
                    self._news.set()
            except ApiError as refused:
                _LOG.warning("%s %s cannot be followed: %s", resource.kind, name, refused)
            finally:
                await events.aclose()
            await self._clock.sleep(_RETRY_SECONDS)

    async def _rest(self, seconds: float) -> None:
        news = asyncio.ensure_future(self._news.wait())
        due = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait((news, due), return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
            due.cancel()


def _data(secret: Object | None) -> dict[str, bytes]:
    data = (secret or {}).get("data") or {}
    decoded = {}
    for name, value in data.items():
        try:
            decoded[name] = b64decode(value or "", validate=True)
        except (NotBase64, ValueError):
            decoded[name] = b""
    return decoded
