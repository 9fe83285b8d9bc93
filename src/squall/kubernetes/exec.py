"""Run a command inside a pod's container, over the API server (WebSocket, protocol v5)."""

import asyncio
from collections.abc import AsyncIterable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import orjson
from httpx2 import TransportError
from httpx2.websockets import AsyncWebSocketSession, HTTPXWSException, WebSocketUpgradeError
from wsproto.utilities import LocalProtocolError

from squall.api.cluster import POD, ApiError, Object, Unreachable
from squall.kubernetes.client import path_of
from squall.kubernetes.connection import Connection, Query, refusal

PROTOCOL = "v5.channel.k8s.io"
"""The first byte of a message names its channel; v5 can also say that stdin has ended."""

STDIN, STDOUT, STDERR, STATUS = range(4)
END_OF_STDIN = bytes([255, STDIN])

Sink = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Streams:
    """Where a command's standard streams lead."""

    stdout: Sink
    """Takes what the command writes, as it comes."""
    stderr: Sink
    """Takes what it complains, as it comes."""
    stdin: AsyncIterable[bytes] | None = None
    """What it reads, in chunks of any size; None means nothing."""


async def run_in_pod(
    connection: Connection,
    namespace: str,
    pod: str,
    command: Sequence[str],
    streams: Streams,
    *,
    container: str = "",
) -> int:
    """Run `command` and return its exit code.

    Args:
        connection: to the API server.
        namespace: of the pod.
        pod: its name.
        command: program and arguments; no shell reads them.
        streams: its input and output; what a sink raises arrives in an `ExceptionGroup`.
        container: which one; empty where the pod has only one.

    Raises:
        ApiError: the server did not run it, or (`Unreachable`) the connection broke before the
            command ended; what it did by then is unknown.
    """
    query: dict[str, str | list[str]] = {"command": list(command), "stdout": "1", "stderr": "1"}
    if streams.stdin is not None:
        query["stdin"] = "1"
    if container:
        query["container"] = container
    path, where = path_of(POD, namespace, pod, "exec"), f"exec in {namespace}/{pod}"
    try:
        async with connection.websocket(path, query, PROTOCOL) as socket:
            status = await _talk(socket, streams)
    except WebSocketUpgradeError as error:
        raise await _reason(connection, path, query, where, error) from error
    except TransportError as error:
        message = f"{where}: {connection.server} does not answer ({error})"
        raise Unreachable(0, "Unreachable", message) from error
    if status is None:
        message = f"{where}: the connection broke before the command ended"
        raise Unreachable(0, "Unreachable", message)
    return _exit_code(status)


async def _reason(
    connection: Connection,
    path: str,
    query: Query,
    where: str,
    error: WebSocketUpgradeError,
) -> ApiError:
    """Ask again without an upgrade: the library has let go of the body that said why."""
    code = error.response.status_code
    try:
        await connection.send("GET", path, query=query)
    except ApiError as refused:
        return refusal({"code": code, "message": f"{where}: {refused.message}"})
    return refusal({"code": code, "message": f"{where}: the API answered {code}"})


async def _talk(socket: AsyncWebSocketSession, streams: Streams) -> Object | None:
    """Carry the streams until the command ends; None when the connection does so first."""
    async with asyncio.TaskGroup() as group:
        feeding = group.create_task(_feed(socket, streams.stdin)) if streams.stdin else None
        try:
            return await _drain(socket, {STDOUT: streams.stdout, STDERR: streams.stderr})
        finally:
            if feeding:
                feeding.cancel()


async def _feed(socket: AsyncWebSocketSession, stdin: AsyncIterable[bytes]) -> None:
    with suppress(HTTPXWSException, LocalProtocolError):  # whoever drains it notices the end
        async for chunk in stdin:
            await socket.send_bytes(bytes([STDIN]) + chunk)
        await socket.send_bytes(END_OF_STDIN)


async def _drain(socket: AsyncWebSocketSession, sinks: dict[int, Sink]) -> Object | None:
    while True:
        try:
            message = await socket.receive_bytes()
        except HTTPXWSException:
            return None
        channel, payload = message[0], message[1:]
        if channel == STATUS:
            status: Object = orjson.loads(payload)
            return status
        sinks[channel](payload)


def _exit_code(status: Object) -> int:
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise refusal(status)
