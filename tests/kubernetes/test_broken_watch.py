"""A watch over HTTP, and what happens to it when the way to the server breaks."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import yaml

from squall.api.cluster import LEASE, Unreachable
from squall.kubernetes.client import HttpCluster
from testbed.apiserver import ApiServer
from tests.kubernetes.objects import Follower, lease
from tests.kubernetes.severed_path import path_to


def through(server: ApiServer, port: int, folder: Path) -> Path:
    """Write a kubeconfig that leads to the server by another port."""
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


async def test_a_watch_survives_a_broken_connection_and_tells_what_it_missed(
    server: ApiServer, http: HttpCluster, its_namespace: str, tmp_path: Path
):
    for name in ("kept", "changed", "gone", "replaced"):
        await http.create(LEASE, lease(its_namespace, name))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(30))
        path = await stack.enter_async_context(path_to(int(server.url.rpartition(":")[2])))
        far = await stack.enter_async_context(
            HttpCluster.from_kubeconfig(through(server, path.port, tmp_path))
        )
        follower = await stack.enter_async_context(Follower(far.watch(LEASE, its_namespace)))
        assert sorted(await follower.next(4)) == [
            "ADDED changed", "ADDED gone", "ADDED kept", "ADDED replaced",
        ]  # fmt: skip
        await http.create(LEASE, lease(its_namespace, "open"))
        assert await follower.next(2) == ["SYNCED", "ADDED open"]

        await path.cut()
        with pytest.raises(Unreachable):
            await far.get(LEASE, its_namespace, "kept")
        await http.patch(LEASE, its_namespace, "changed", {"spec": {"holderIdentity": "b"}})
        await http.delete(LEASE, its_namespace, "gone")
        await http.delete(LEASE, its_namespace, "replaced")
        await http.create(LEASE, lease(its_namespace, "replaced"))
        await http.create(LEASE, lease(its_namespace, "new"))
        await path.mend()

        assert sorted(await follower.next(5)) == [
            "ADDED new", "ADDED replaced", "DELETED gone", "DELETED replaced", "MODIFIED changed",
        ]  # fmt: skip
        assert await follower.next(1) == ["SYNCED"]
        await http.create(LEASE, lease(its_namespace, "later"))
        assert await follower.next(1) == ["ADDED later"]


async def test_a_watch_waits_for_a_server_that_is_not_there_yet(
    server: ApiServer, http: HttpCluster, its_namespace: str, tmp_path: Path
):
    async with asyncio.timeout(30), path_to(int(server.url.rpartition(":")[2])) as path:
        await path.cut()
        far = HttpCluster.from_kubeconfig(through(server, path.port, tmp_path))
        async with far, Follower(far.watch(LEASE, its_namespace)) as follower:
            first = asyncio.ensure_future(follower.next(1))
            with pytest.raises(Unreachable, match="is the API server running"):
                await far.list(LEASE, its_namespace)
            await path.mend()
            assert await first == ["SYNCED"]
