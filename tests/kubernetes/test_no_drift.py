"""Random sequences of writes: everything behind the port must give the same answers."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squall.api.cluster import NODE_FAULT, ApiError, Cluster, Object
from squall.api.fake_cluster import FakeCluster
from squall.kubernetes.client import HttpCluster
from squall.kubernetes.embedded.loopback import Loopback
from squall.kubernetes.embedded.store import Store
from testbed.apiserver import ApiServer
from tests.kubernetes.conftest import new_namespace
from tests.kubernetes.embedded import embedded_objects
from tests.kubernetes.objects import node_fault

NAMES = st.sampled_from(["a", "b"])
LABELS = st.dictionaries(
    st.sampled_from(["x", "y"]), st.none() | st.sampled_from(["1", "2"]), max_size=2
)
FINALIZERS = st.none() | st.lists(
    st.sampled_from(["squall.dev/p", "squall.dev/q"]), unique=True, max_size=2
)
PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries(
            {}, optional={"labels": LABELS, "finalizers": FINALIZERS}
        ),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "desiredPhase": st.sampled_from(["Run", "Stop"]),
                "deadline": st.none() | st.just("2026-01-01T12:00:00Z"),
            },
        ),
        "status": st.fixed_dictionaries(
            {}, optional={"observedGeneration": st.none() | st.integers(0, 3)}
        ),
    },
)
CALLS = st.one_of(
    st.tuples(st.just("create"), NAMES, FINALIZERS),
    st.tuples(st.just("patch"), NAMES, PATCHES),
    st.tuples(st.just("status"), NAMES, PATCHES),
    st.tuples(st.just("delete"), NAMES),
    st.tuples(st.just("list")),
)


async def answers(cluster: Cluster, namespace: str, calls: list[tuple]) -> list[Any]:
    return [await answer(cluster, namespace, *call) for call in calls]


async def answer(cluster: Cluster, namespace: str, verb: str, *arguments: Any) -> Any:
    try:
        match verb, *arguments:
            case "create", name, finalizers:
                metadata = {"finalizers": finalizers} if finalizers else {}
                made = await cluster.create(NODE_FAULT, node_fault(namespace, name, **metadata))
                return comparable(made)
            case "patch", name, patch:
                return comparable(await cluster.patch(NODE_FAULT, namespace, name, patch))
            case "status", name, patch:
                written = await cluster.patch(
                    NODE_FAULT, namespace, name, patch, subresource="status"
                )
                return comparable(written)
            case "delete", name:
                return await cluster.delete(NODE_FAULT, namespace, name)
        return [comparable(obj) for obj in await cluster.list(NODE_FAULT, namespace)]
    except ApiError as refused:
        return type(refused).__name__, refused.code


def comparable(obj: Mapping[str, Any]) -> Object:
    """Leave out what two servers cannot share, and the difference between empty and absent."""
    own = {"uid", "resourceVersion", "creationTimestamp", "namespace", "managedFields"}
    metadata = {k: v for k, v in obj["metadata"].items() if k not in own and v not in ({}, [])}
    if "deletionTimestamp" in metadata:
        metadata["deletionTimestamp"] = "then"
    parts = {k: v for k, v in obj.items() if v != {}}
    return {**parts, "metadata": metadata}


def in_process(calls: list[tuple]) -> tuple[list[Any], list[Any]]:
    async def both() -> tuple[list[Any], list[Any]]:
        store = Store(":memory:")
        fake, loopback = FakeCluster(), Loopback(embedded_objects(store))
        try:
            return (
                await answers(fake, await new_namespace(fake), calls),
                await answers(loopback, await new_namespace(loopback), calls),
            )
        finally:
            store.close()

    return asyncio.run(both())


@given(calls=st.lists(CALLS, max_size=12))
def test_the_fake_answers_as_the_embedded_api(calls):
    assert_same(calls, *in_process(calls))


@pytest.mark.kubernetes
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALLS, min_size=3, max_size=12))
def test_the_embedded_api_answers_as_a_real_one(real: ApiServer, calls):
    async def run() -> list[Any]:
        async with HttpCluster.from_kubeconfig(real.kubeconfig) as cluster:
            return await answers(cluster, await new_namespace(cluster), calls)

    _, embedded = in_process(calls)
    assert_same(calls, embedded, asyncio.run(run()))


def assert_same(calls: list[tuple], ours: list[Any], theirs: list[Any]) -> None:
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one == other, f"after {calls[: number + 1]}:\n{one}\nis not\n{other}"
