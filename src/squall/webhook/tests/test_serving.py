import asyncio
import ssl
from base64 import b64decode
from contextlib import asynccontextmanager

import orjson
import pytest

from squall import http
from squall.api.cluster import SECRET
from squall.api.fake_cluster import FakeCluster
from squall.api.policy import Policy
from squall.clock import FakeClock, settle
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.webhook.authorisation import AT_A_TIME
from squall.webhook.renewal import Place
from squall.webhook.serving import Webhook
from squall.webhook.tests.asking import NETWORK, asked, patch_of, said
from squall.webhook.tests.test_authorisation import Authorities

PLACE = Place("squall", more_hosts=("127.0.0.1",))
DEFAULTS = "/mutate-chaos-mesh-org-v1alpha1-networkchaos"
RULES = "/validate-chaos-mesh-org-v1alpha1-networkchaos"


class Scene:
    """A webhook on loopback, and clients of it."""

    def __init__(self):
        self.cluster = FakeCluster()
        self.policy = Policy()
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.webhook = Webhook(
            self.cluster, served_kinds(kinds()), lambda: self.policy, FakeClock(), PLACE
        )

    async def client(self):
        kept = await self.cluster.get(SECRET, "squall", PLACE.service)
        trusted = b64decode(kept["data"]["ca.crt"]).decode()
        context = ssl.create_default_context(cadata=trusted)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        self.writers.append(writer)
        return reader, writer

    async def end(self):
        await self.webhook.stop()
        for writer in self.writers:
            writer.close()
        # Some have been cut off, which is what their tests are about.
        await asyncio.gather(*(w.wait_closed() for w in self.writers), return_exceptions=True)


@asynccontextmanager
async def running():
    scene = Scene()
    scene.port = await scene.webhook.start("127.0.0.1", 0)
    try:
        yield scene
    finally:
        await scene.end()


async def ask(streams, path, body=b"", method="POST", headers=""):
    reader, writer = streams
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    writer.write(head.encode() + body)
    return await answer(reader)


async def answer(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status = int(head.split()[1])
    length = next(line for line in head.splitlines() if line.startswith("Content-Length"))
    return status, await reader.readexactly(int(length.split()[1])), head


async def closed(reader):
    return await reader.read() == b""


async def test_one_connection_carries_many_reviews():
    async with running() as scene:
        streams = await scene.client()
        bare = {**NETWORK, "selector": {}}
        for _ in range(3):
            status, body, _ = await ask(streams, f"{DEFAULTS}?timeout=5s", asked(spec=bare))
            (patch,) = patch_of(orjson.loads(body))
            assert (status, patch["value"]) == (200, ["here"])
        status, body, _ = await ask(streams, RULES, asked(spec=NETWORK | {"mode": "some"}))
        assert status == 200
        assert "spec.mode: Unsupported value" in said(orjson.loads(body))
        status, body, _ = await ask(streams, "/validate-auth", asked(spec=NETWORK, old=NETWORK))
        assert said(orjson.loads(body)) == ""


async def test_the_policy_is_read_for_each_review():
    async with running() as scene:
        streams = await scene.client()
        scene.policy = Policy(protected_namespaces=["here"])
        _, body, _ = await ask(streams, RULES, asked(spec=NETWORK))
        assert "which this installation protects" in said(orjson.loads(body))


async def test_what_is_not_served_is_named_with_what_is():
    async with running() as scene:
        streams = await scene.client()
        status, body, _ = await ask(streams, "/validate-chaos-mesh-org-v1alpha1-timechaos")
        assert status == 404
        assert RULES.encode() in body
        assert (await ask(streams, RULES, method="GET"))[0] == 405
        assert (await ask(streams, "/healthz", method="GET"))[:2] == (200, b"ok")
        status, body, _ = await ask(streams, RULES, b"{}")
        assert (status, body) == (400, b"the body is no AdmissionReview")


async def test_a_body_that_is_too_large_is_not_read():
    async with running() as scene:
        reader, writer = await scene.client()
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 3145729\r\n\r\n")
        assert (await answer(reader))[0] == 413
        assert await closed(reader)


async def test_chunks_are_counted():
    async with running() as scene:
        reader, writer = await scene.client()
        writer.write(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"300001\r\n" + bytes(0x300001))
        assert (await answer(reader))[0] == 413


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\r\n\r\n", b"GET\r\n\r\n"])
async def test_what_is_no_request_ends_the_connection(sent):
    async with running() as scene:
        reader, writer = await scene.client()
        writer.write(sent)
        assert (await answer(reader))[0] == 400
        assert await closed(reader)


async def test_a_client_that_asked_to_close_is_let_go():
    async with running() as scene:
        streams = await scene.client()
        _, _, head = await ask(streams, "/healthz", headers="Connection: close\r\n")
        assert "Connection: close" in head
        assert await closed(streams[0])


async def test_a_request_that_never_ends_is_cut_off(monkeypatch):
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.05)
    async with running() as scene:
        reader, writer = await scene.client()
        writer.write(b"POST /validate-auth HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            await _end(reader)


async def test_who_asks_is_answered_though_others_take_all_places_in_silence(monkeypatch):
    monkeypatch.setattr(http, "MOST_CONNECTIONS", 4)
    async with running() as scene:
        asking = await scene.client()
        await ask(asking, "/healthz")
        for _ in range(5):
            await scene.client()
        assert (await ask(await scene.client(), RULES, asked(spec=NETWORK)))[0] == 200
        assert (await ask(asking, "/healthz"))[0] == 200  # who has asked before is kept


async def test_who_comes_and_asks_nothing_is_let_go(monkeypatch):
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.05)
    async with running() as scene:
        reader, _ = await scene.client()
        with pytest.raises(ConnectionError):
            await _end(reader)


async def test_reviews_of_several_callers_ask_no_more_at_a_time_than_one():
    async with running() as scene:
        authorities = Authorities()
        scene.webhook._cluster = authorities
        names = [f"n{number}" for number in range(AT_A_TIME)]
        wide = NETWORK | {"selector": {"namespaces": names}}
        clients = [await scene.client() for _ in range(3)]
        await asyncio.gather(*(ask(c, "/validate-auth", asked(spec=wide)) for c in clients))
        assert len(authorities.asked) == 3 * AT_A_TIME
        assert authorities.busiest <= AT_A_TIME


async def test_a_stop_answers_what_was_asked_and_closes_what_is_idle():
    async with running() as scene:
        idle, busy = await scene.client(), await scene.client()
        await ask(idle, "/healthz")
        answering, go = asyncio.Event(), asyncio.Event()

        async def create(resource, obj):
            answering.set()
            await go.wait()
            return {"status": {"allowed": True}}

        scene.cluster.create = create
        asking = asyncio.create_task(ask(busy, "/validate-auth", asked(spec=NETWORK)))
        await answering.wait()
        stopping = asyncio.create_task(scene.webhook.stop())
        assert await closed(idle[0])
        go.set()
        _, body, head = await asking
        assert said(orjson.loads(body)) == ""
        assert "Connection: close" in head
        await stopping
        with pytest.raises(ConnectionRefusedError):
            await scene.client()
        await scene.webhook.stop()


async def test_a_new_certificate_is_shown_without_a_restart():
    async with running() as scene:
        old = await scene.client()
        await scene.cluster.delete(SECRET, "squall", PLACE.service)
        await settle()
        new = await scene.client()  # trusts the new authority alone
        assert (await ask(new, "/healthz"))[0] == (await ask(old, "/healthz"))[0] == 200


async def test_it_serves_on_every_address_until_it_is_cancelled():
    scene = Scene()
    assert scene.webhook.missing() == "the webhook's certificate, Secret squall-webhook"
    scene.cluster.down = True
    serving = asyncio.create_task(scene.webhook.serve("", 0))
    await settle()
    assert scene.webhook.missing()
    serving.cancel()
    await asyncio.wait([serving])
    assert serving.cancelled()
    scene.cluster.down = False
    scene.port = await scene.webhook.start("", 0)
    assert scene.webhook.missing() == ""
    assert (await ask(await scene.client(), "/healthz"))[0] == 200
    _, writer = await asyncio.open_connection("::1", scene.port)
    writer.close()
    await scene.end()


async def test_an_address_in_use_is_said():
    async with running() as scene:
        with pytest.raises(OSError, match=f"127.0.0.1:{scene.port}: .* another address"):
            await Scene().webhook.start("127.0.0.1", scene.port)


async def _end(reader):
    if not await reader.read():
        raise ConnectionResetError
