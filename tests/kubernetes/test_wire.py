"""What is asked of the wire itself, where the port and kubectl do not look."""

import json
import ssl
from collections.abc import AsyncIterator
from itertools import pairwise

import httpx2
import pytest

from squall.api.cluster import LEASE, NODE_FAULT
from squall.kubernetes.client import HttpCluster, path_of
from testbed.apiserver import ApiServer
from tests.kubernetes.objects import lease


@pytest.fixture
async def raw(server: ApiServer) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        base_url=server.url,
        verify=ssl.create_default_context(cafile=str(server.authority)),
        headers={"Authorization": f"Bearer {server.token}"},
        timeout=10,
        trust_env=False,
    ) as client:
        yield client


async def changes(raw: httpx2.AsyncClient, path: str, **query: str) -> list[dict]:
    """Watch until the server ends the stream."""
    said = await raw.get(path, params={"watch": "true", "timeoutSeconds": "1", **query})
    assert said.status_code == 200, said.text
    return [json.loads(line) for line in said.text.splitlines()]


async def test_nobody_is_let_in_without_a_token(server: ApiServer, raw: httpx2.AsyncClient):
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        del raw.headers["Authorization"]
        raw.headers.update(headers)
        refused = await raw.get("/api/v1/namespaces")
        assert refused.status_code == 401
        assert refused.json() == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "Unauthorized",
            "reason": "Unauthorized",
            "code": 401,
        }
        raw.headers["Authorization"] = ""


async def test_a_watch_goes_on_from_a_version(
    raw: httpx2.AsyncClient, http: HttpCluster, its_namespace: str
):
    path = path_of(LEASE, its_namespace)
    made = [await http.create(LEASE, lease(its_namespace, name)) for name in "abc"]
    await http.delete(LEASE, its_namespace, "a")
    since = made[0]["metadata"]["resourceVersion"]
    heard = await changes(raw, path, resourceVersion=since)
    assert [(line["type"], line["object"]["metadata"]["name"]) for line in heard] == [
        ("ADDED", "b"),
        ("ADDED", "c"),
        ("DELETED", "a"),
    ]
    versions = [int(line["object"]["metadata"]["resourceVersion"]) for line in heard]
    assert all(earlier < later for earlier, later in pairwise(versions))


async def test_a_watch_without_a_version_begins_with_what_is_there(
    raw: httpx2.AsyncClient, http: HttpCluster, its_namespace: str
):
    await http.create(LEASE, lease(its_namespace))
    for version in ({}, {"resourceVersion": "0"}):
        heard = await changes(raw, path_of(LEASE, its_namespace), **version)
        assert [line["type"] for line in heard] == ["ADDED"]


async def test_a_version_that_is_forgotten_ends_the_watch_with_410(
    raw: httpx2.AsyncClient, forgotten: str, its_namespace: str
):
    heard = await changes(raw, path_of(NODE_FAULT, its_namespace), resourceVersion=forgotten)
    assert [line["type"] for line in heard] == ["ERROR"]
    status = heard[0]["object"]
    assert (status["code"], status["reason"]) == (410, "Expired")
    assert status["message"].startswith(f"too old resource version: {forgotten} (")


async def test_a_long_list_comes_in_pages(
    raw: httpx2.AsyncClient, http: HttpCluster, its_namespace: str
):
    for name in "abcde":
        await http.create(LEASE, lease(its_namespace, name))
    pages, query = [], {"limit": "2"}
    while True:
        page = (await raw.get(path_of(LEASE, its_namespace), params=query)).json()
        pages.append([item["metadata"]["name"] for item in page["items"]])
        if not page["metadata"].get("continue"):
            break
        query["continue"] = page["metadata"]["continue"]
    assert pages == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_body_that_cannot_be_read_is_refused(raw: httpx2.AsyncClient, its_namespace: str):
    path = path_of(LEASE, its_namespace)
    headers = {"Content-Type": "application/json"}
    assert (await raw.post(path, content=b"{", headers=headers)).status_code == 400
    assert (await raw.post(path, content=b"[]", headers=headers)).status_code == 400
    wrong = {"Content-Type": "text/plain"}
    assert (await raw.post(path, content=b"x", headers=wrong)).status_code == 415
    assert (await raw.post(f"{path}/x", content=b"{}", headers=headers)).status_code == 405
    assert (await raw.get("/apis/none.example/v1/things")).status_code == 404
