"""What an agent tells of itself, and how often."""

import asyncio
import json

import pytest

from squall.api.cluster import LEASE, POD, NotFound
from squall.api.fake_cluster import FakeCluster
from squall.api.names import agent_lease_name
from squall.clock import FakeClock, settle
from squall.node.doctor import Ability, Capability
from squall.node.presence import RENEW_SECONDS, Presence

WHY = "the kernel has no nftables"


class Tried:
    async def examine(self, names):
        return {
            "a:works": Capability("a:works", Ability.OK, "by this"),
            "b:lacks": Capability("b:lacks", Ability.MISSING, why=WHY),
        }


@pytest.fixture
async def told():
    cluster, clock = FakeCluster(), FakeClock()
    presence = Presence(
        cluster, clock, namespace="squall", node_name="n1", capabilities=Tried(),
        needs=["a:works", "b:lacks", "c:new", "a:works"], sealing_key="told",
    )  # fmt: skip
    task = asyncio.create_task(presence.run())
    assert presence.missing()
    await settle(50)
    yield cluster, clock, presence
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_node_with_an_agent_has_a_lease_that_says_what_it_can_do(told):
    cluster, _, presence = told
    assert not presence.missing()
    lease = await cluster.get(LEASE, "squall", "squall-agent-n1")
    assert lease["spec"]["holderIdentity"] == "n1"
    assert lease["metadata"]["annotations"]["squall.dev/sealing-key"] == "told"
    assert json.loads(lease["metadata"]["annotations"]["squall.dev/abilities"]) == {
        "a:works": "ok",
        "b:lacks": f"missing: {WHY}",
        "c:new": "missing: this agent does not know how to try it",
    }


async def test_it_is_renewed_once_a_minute_and_made_again_when_somebody_removed_it(told):
    cluster, clock, _ = told
    first = await cluster.get(LEASE, "squall", "squall-agent-n1")
    await clock.advance(RENEW_SECONDS / 2)
    await settle(50)
    same = await cluster.get(LEASE, "squall", "squall-agent-n1")
    assert same["spec"]["renewTime"] == first["spec"]["renewTime"]
    await cluster.delete(LEASE, "squall", "squall-agent-n1")
    await clock.advance(RENEW_SECONDS / 2)
    await settle(50)
    again = await cluster.get(LEASE, "squall", "squall-agent-n1")
    assert again["spec"]["renewTime"] > first["spec"]["renewTime"]


async def test_who_ends_leaves_no_lease_behind_and_minds_none_that_is_gone(told):
    cluster, _, presence = told
    await presence.leave()
    with pytest.raises(NotFound):
        await cluster.get(LEASE, "squall", "squall-agent-n1")
    assert presence.missing()
    await presence.leave()


def test_the_name_of_any_node_makes_a_name_of_a_lease():
    assert len({agent_lease_name("n" * 250 + end) for end in "ab"}) == 2
    assert len(agent_lease_name("n" * 253)) <= 253


async def test_the_lease_goes_with_what_runs_the_agent():
    cluster, clock = FakeCluster(), FakeClock()
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "squall-agent", "uid": "u-1"}
    meta = {
        "name": "agent-x",
        "namespace": "squall",
        "ownerReferences": [owner | {"controller": True}],
    }
    await cluster.create(POD, {"metadata": meta})
    for pod, owners in (("agent-x", [owner]), ("no-such-pod", [])):
        presence = Presence(
            cluster, clock, namespace="squall", node_name=pod, capabilities=Tried(), needs=[],
            pod=pod,
        )  # fmt: skip
        task = asyncio.create_task(presence.run())
        await settle(50)
        lease = await cluster.get(LEASE, "squall", agent_lease_name(pod))
        assert lease["metadata"]["ownerReferences"] == owners
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
