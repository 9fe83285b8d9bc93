import asyncio
import contextlib
from base64 import b64decode
from datetime import timedelta

import pytest

from squall.api.cluster import SECRET, ApiError, Conflict
from squall.api.fake_cluster import FakeCluster
from squall.certificates import Issued
from squall.clock import FakeClock, settle
from squall.webhook.renewal import MUTATING, VALIDATING, Place, Renewal
from squall.webhook.rotation import LASTS, LOOK_AGAIN, NEXT, OVERLAP, SERVED, TRUSTED

PLACE = Place("squall")
NAME = PLACE.service


def configuration(name=NAME, service=NAME, namespace="squall"):
    client = {"service": {"name": service, "namespace": namespace, "path": "/validate-auth"}}
    return {"metadata": {"name": name}, "webhooks": [{"name": "a.b.c", "clientConfig": client}]}


class Replica:
    """One replica that runs, and what it served."""

    def __init__(self, cluster, clock):
        self.served: list[Issued] = []
        self.renewal = Renewal(cluster, clock, PLACE, self.served.append)
        self.task = asyncio.create_task(self.renewal.run())


@contextlib.asynccontextmanager
async def running(cluster, clock, replicas=1):
    started = [Replica(cluster, clock) for _ in range(replicas)]
    try:
        await settle()
        await clock.advance(0.2)
        yield started
    finally:
        for replica in started:
            replica.task.cancel()
        await asyncio.gather(*(replica.task for replica in started), return_exceptions=True)


async def secret(cluster):
    found = await cluster.get(SECRET, "squall", NAME)
    return {name: b64decode(value) for name, value in found["data"].items()}


async def bundle(cluster, resource, name=NAME):
    (webhook,) = (await cluster.get(resource, None, name))["webhooks"]
    return b64decode(webhook["clientConfig"].get("caBundle", ""))


@pytest.fixture
async def cluster():
    cluster = FakeCluster()
    for resource in (MUTATING, VALIDATING):
        await cluster.create(resource, configuration())
        await cluster.create(resource, configuration(name="of-others", service="others"))
    return cluster


@pytest.fixture
def clock():
    return FakeClock()


async def test_two_replicas_agree_on_one_certificate_that_is_trusted(cluster, clock):
    async with running(cluster, clock, replicas=2) as (one, other):
        kept = await secret(cluster)
        assert [issued.certificate for issued in one.served] == [kept[SERVED]]
        assert one.served == other.served
        for resource in (MUTATING, VALIDATING):
            assert await bundle(cluster, resource) == kept[TRUSTED]
            assert await bundle(cluster, resource, "of-others") == b""
        assert (await cluster.get(SECRET, "squall", NAME))["type"] == "kubernetes.io/tls"


async def test_a_lost_bundle_is_mended_at_once(cluster, clock):
    async with running(cluster, clock):
        await cluster.patch(MUTATING, None, NAME, {"webhooks": configuration()["webhooks"]})
        await settle()
        assert await bundle(cluster, MUTATING) == (await secret(cluster))[TRUSTED]


async def test_webhooks_that_lead_elsewhere_stay_as_they_are(cluster, clock):
    mixed = [configuration(), configuration(namespace="another"), configuration(service="x")]
    webhooks = [webhook for one in mixed for webhook in one["webhooks"]]
    await cluster.patch(MUTATING, None, NAME, {"webhooks": webhooks})
    async with running(cluster, clock):
        found = (await cluster.get(MUTATING, None, NAME))["webhooks"]
        assert ["caBundle" in one["clientConfig"] for one in found] == [True, False, False]


async def test_a_deleted_secret_is_made_anew_and_served_without_a_restart(cluster, clock):
    async with running(cluster, clock) as (replica,):
        await cluster.delete(SECRET, "squall", NAME)
        await settle()
        kept = await secret(cluster)
        assert [issued.certificate for issued in replica.served][1:] == [kept[SERVED]]
        assert await bundle(cluster, VALIDATING) == kept[TRUSTED]


async def test_a_certificate_is_replaced_in_time_and_trusted_before_it_is_served(cluster, clock):
    async with running(cluster, clock, replicas=2) as replicas:
        first = await secret(cluster)
        clock.step(LASTS * 2 / 3)
        await clock.advance(LOOK_AGAIN.total_seconds() + 1)
        prepared = await secret(cluster)
        assert prepared[SERVED] == first[SERVED]
        assert prepared[TRUSTED].startswith(first[TRUSTED])
        assert await bundle(cluster, MUTATING) == prepared[TRUSTED] != first[TRUSTED]
        await clock.advance((OVERLAP + timedelta(seconds=1)).total_seconds())
        assert (await secret(cluster))[SERVED] == prepared[NEXT]
        for replica in replicas:
            assert [issued.certificate for issued in replica.served] == [
                first[SERVED],
                prepared[NEXT],
            ]
        await clock.advance((OVERLAP + timedelta(seconds=1)).total_seconds())
        assert await bundle(cluster, MUTATING) == prepared[TRUSTED].removeprefix(first[TRUSTED])


async def test_an_api_that_does_not_answer_is_asked_again(cluster, clock):
    cluster.down = True
    async with running(cluster, clock) as (replica,):
        assert replica.served == []
        cluster.down = False
        await clock.advance(10)
        assert len(replica.served) == 1


@pytest.mark.parametrize("error", [Conflict(409, "", "x"), ApiError(500, "", "x")])
async def test_a_write_that_fails_is_tried_again(cluster, clock, error):
    failures = [error, error]

    def fails(verb, resource, name):
        if failures and verb in {"patch", "create"}:
            raise failures.pop()

    cluster.on_call = fails
    async with running(cluster, clock) as (replica,):
        await clock.advance(20)
        assert await bundle(cluster, MUTATING) == (await secret(cluster))[TRUSTED]
        assert len(replica.served) == 1


async def test_configurations_that_come_later_are_completed(clock):
    cluster = FakeCluster()
    async with running(cluster, clock) as (replica,):
        assert len(replica.served) == 1
        await cluster.create(VALIDATING, configuration())
        await settle()
        assert await bundle(cluster, VALIDATING) == (await secret(cluster))[TRUSTED]
