import asyncio
import json
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

PODS = "/api/v1/namespaces/default/pods"
V5 = "v5.channel.k8s.io"
POD = {
    "metadata": {"name": "web"},
    "spec": {"containers": [{"name": "main", "image": "x"}]},
}


@asynccontextmanager
async def running(api, *command, token="", protocols=(V5,), **query):
    await api.client.post(PODS, json=POD)
    given = urlencode([*(("command", word) for word in command), *query.items()])
    url = f"{api.url.replace('https', 'wss')}{PODS}/web/exec?{given}"
    headers = {"authorization": f"Bearer {token or api.token}"}
    async with (
        asyncio.timeout(10),
        connect(
            url,
            ssl=api.tls,
            subprotocols=list(protocols),
            additional_headers=headers,
            proxy=None,
        ) as socket,
    ):
        yield socket


async def channels(socket):
    heard: dict[int, bytes] = {}
    async for message in socket:
        heard[message[0]] = heard.get(message[0], b"") + message[1:]
    return heard


async def test_output_and_success_come_on_their_channels(api):
    async with running(api, "hello", "you") as socket:
        heard = await channels(socket)
    assert heard[1] == b"hello you\n"
    assert json.loads(heard[3])["status"] == "Success"


async def test_a_failure_carries_its_exit_code(api):
    async with running(api, "fail", "3", "no") as socket:
        heard = await channels(socket)
    assert heard[2] == b"no"
    status = json.loads(heard[3])
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_input_arrives_whole_and_can_be_ended(api):
    async with running(api, "cat", stdin="true") as socket:
        for _ in range(40):
            await socket.send(b"\0" + b"x" * 50_000)
        await socket.send(b"\xff\0")
        heard = await channels(socket)
    assert len(heard[1]) == 2_000_000


async def test_a_terminal_learns_its_size(api):
    async with running(api, "cat", stdin="true", tty="true") as socket:
        await socket.send(b'\x04{"Width": 80, "Height": 25}')
        await socket.send(b"\x04nonsense")
        await socket.send(b"\xff\0")
        await channels(socket)
    assert api.runtime.sessions[0].size == (80, 25)


async def test_a_command_ends_with_its_client(api):
    async with running(api, "hold"):
        pass
    async with asyncio.timeout(5):
        await api.runtime.sessions[0].killed.wait()


async def test_a_stop_ends_open_commands(api):
    async with running(api, "hold") as socket:
        stopping = asyncio.create_task(api.server.stop())
        with pytest.raises(ConnectionClosedError):
            await channels(socket)
    await stopping
    assert api.runtime.sessions[0].killed.is_set()


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"token": "wrong"}, 401),
        ({"protocols": ("channel.k8s.io",)}, 400),
        ({"container": "other"}, 400),
    ],
)
async def test_a_refusal_comes_before_the_handshake(api, asked, code):
    with pytest.raises(InvalidStatus) as refused:
        async with running(api, "true", **asked):
            pass
    assert refused.value.response.status_code == code
