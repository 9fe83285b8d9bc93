"""What a client makes of servers that do not behave; the well-behaved ones are in tests/."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from lightkube import KubeConfig

from squall.api.cluster import (
    LEASE,
    NAMESPACE,
    POD,
    AlreadyExists,
    ApiError,
    Conflict,
    NotFound,
    Unreachable,
)
from squall.kubernetes.client import HttpCluster, path_of
from squall.kubernetes.connection import Connection, refusal


@asynccontextmanager
async def answering(*answers: bytes):
    """Give each request the next of these answers, then hang up; collects the requests."""
    remaining, asked = list(answers), []

    async def serve(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(remaining.pop(0) if remaining else b"")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = KubeConfig.from_server(f"http://127.0.0.1:{port}").get()
    async with server, HttpCluster(Connection(config)) as cluster:
        yield cluster, asked


def http(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_a_server_that_hangs_up_is_unreachable():
    async with answering() as (cluster, _):
        with pytest.raises(Unreachable, match="is the API server running"):
            await cluster.get(POD, "default", "web")


async def test_an_answer_that_breaks_off_is_unreachable():
    async with answering(http("200 OK", b"{" + b" " * 100)[:-50]) as (cluster, _):
        with pytest.raises(Unreachable):
            await cluster.get(POD, "default", "web")


async def test_a_refusal_that_is_not_of_the_api_server_is_shown_as_it_is():
    page = http("502 Bad Gateway", b"<html>no upstream</html>", "text/html")
    async with answering(page) as (cluster, _):
        with pytest.raises(ApiError, match="<html>no upstream</html>") as refused:
            await cluster.get(POD, "default", "web")
    assert refused.value.code == 502
    assert not isinstance(refused.value, Unreachable)


async def test_a_page_that_is_not_json_does_not_pass_for_an_object():
    page = http("200 OK", b"<html>please log in</html>", "text/html")
    async with answering(page) as (cluster, _):
        with pytest.raises(ApiError, match="no Kubernetes API"):
            await cluster.get(POD, "default", "web")


async def test_a_list_whose_pages_expired_is_read_again_in_one_piece():
    first = (
        b'{"metadata":{"resourceVersion":"5","continue":"t"},"items":[{"metadata":{"name":"a"}}]}'
    )
    gone = b'{"kind":"Status","code":410,"reason":"Expired","message":"too old"}'
    whole = b'{"metadata":{"resourceVersion":"9"},"items":[{"metadata":{"name":"b"}}]}'
    async with answering(http("200 OK", first), http("410 Gone", gone), http("200 OK", whole)) as (
        cluster,
        asked,
    ):
        found = await cluster.list(POD)
    assert [obj["metadata"]["name"] for obj in found] == ["b"]
    assert "limit=500" in asked[0]
    assert "continue=t" in asked[1]
    assert "limit" not in asked[2].splitlines()[0]


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (422, "Invalid", ApiError),
        (500, "InternalError", ApiError),
    ],
)
def test_errors_are_named_by_what_to_do_next(code, reason, error):
    details = {"causes": [{"field": "spec.mode"}]}
    raised = refusal({"code": code, "reason": reason, "message": "why", "details": details})
    assert type(raised) is error
    assert (raised.code, raised.reason, str(raised)) == (code, reason, "why")
    assert raised.details == details


@pytest.mark.parametrize(
    ("where", "path"),
    [
        ((POD, None), "/api/v1/pods"),
        ((POD, "default", "web"), "/api/v1/namespaces/default/pods/web"),
        ((POD, "default", "web", "log"), "/api/v1/namespaces/default/pods/web/log"),
        ((NAMESPACE, "ignored", "a"), "/api/v1/namespaces/a"),
        ((LEASE, "a", "b/c"), "/apis/coordination.k8s.io/v1/namespaces/a/leases/b%2Fc"),
    ],
)
def test_paths_are_those_of_the_kubernetes_api(where, path):
    assert path_of(*where) == path
