"""What a client makes of servers that do not behave; the well-behaved ones are in tests/."""

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
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
from squall.kubernetes.client import REQUESTS_AT_ONCE, HttpCluster, path_of
from squall.kubernetes.connection import Connection, refusal
from squall.kubernetes.kubeconfig import server_of


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
    async with server, HttpCluster(Connection(server_of(config))) as cluster:
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


async def test_pods_of_one_node_are_listed_as_the_server_has_them_at_hand():
    answers = (listed(5, "a"), streamed())
    fields = "spec.nodeName=n1"
    async with (
        answering(*answers) as (cluster, asked),
        aclosing(cluster.watch(POD, fields=fields)) as watch,
    ):
        await anext(watch)
    assert "resourceVersion=0" in asked[0]
    assert "limit" not in asked[0].splitlines()[0]


def listed(version: int, *names: str) -> bytes:
    items = [{"metadata": {"name": name, "resourceVersion": "1"}} for name in names]
    return http(
        "200 OK", orjson.dumps({"metadata": {"resourceVersion": str(version)}, "items": items})
    )


def streamed(*lines: dict[str, Any], pieces: int = 7) -> bytes:
    """Answer with lines that are torn into chunks of a few octets."""
    body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    chunks = [body[at : at + pieces] for at in range(0, len(body), pieces)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


async def test_objects_of_a_list_say_their_kind_even_where_the_server_does_not():
    async with answering(listed(5, "a", "b")) as (cluster, _):
        found = await cluster.list(POD)
    assert [(obj["apiVersion"], obj["kind"]) for obj in found] == [("v1", "Pod")] * 2


async def test_a_watch_that_is_told_of_an_expired_version_lists_again():
    expired = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
    answers = (listed(5, "a", "b"), streamed(expired), listed(9, "b", "c"))
    async with answering(*answers) as (cluster, asked), aclosing(cluster.watch(POD)) as watch:
        said = [await anext(watch) for _ in range(6)]
    assert [str(event.change) for event in said] == [
        *("ADDED", "ADDED", "SYNCED", "ADDED", "DELETED", "SYNCED")
    ]
    assert "resourceVersion=5" in asked[1]


async def test_lines_of_a_watch_may_be_torn_anywhere():
    meta = {"name": "a", "resourceVersion": "6"}
    changed = {"type": "MODIFIED", "object": {"metadata": meta, "spec": {"text": "ä" * 50}}}
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "8"}}}
    gone = {"type": "DELETED", "object": {"metadata": meta | {"resourceVersion": "9"}}}
    answers = (listed(5, "a"), streamed(changed, bookmark, gone))
    async with answering(*answers) as (cluster, _), aclosing(cluster.watch(POD)) as watch:
        said = [await anext(watch) for _ in range(4)]
    assert [str(event.change) for event in said] == ["ADDED", "SYNCED", "MODIFIED", "DELETED"]
    assert said[2].object["spec"]["text"] == "ä" * 50


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


async def test_a_lease_is_renewed_while_a_storm_of_requests_waits_for_the_server():
    waiting, full, storm = asyncio.Event(), asyncio.Event(), []

    async def serve(reader, writer):
        asked = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "/leases/" in asked:
            writer.write(http("200 OK", b'{"kind":"Lease"}'))
        else:
            storm.append(asked)
            if len(storm) == REQUESTS_AT_ONCE:
                full.set()
            await waiting.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = KubeConfig.from_server(f"http://127.0.0.1:{port}").get()
    async with server, HttpCluster(Connection(server_of(config))) as cluster:
        others = [
            asyncio.create_task(cluster.patch(POD, "default", f"web-{n}", {}))
            for n in range(2 * REQUESTS_AT_ONCE)
        ]
        async with asyncio.timeout(5):
            await full.wait()
            assert await cluster.patch(LEASE, "squall", "one", {}) == {"kind": "Lease"}
        assert len(storm) == REQUESTS_AT_ONCE
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        waiting.set()
