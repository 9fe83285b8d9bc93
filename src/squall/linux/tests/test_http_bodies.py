"""Bodies that `squall-node http` holds to change them: so many at once, and no more."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from pathlib import Path

import h2.events
import pytest

from squall.linux.holder import Holder
from squall.linux.tests import http2_peer
from squall.linux.tests.http2_peer import Peer
from squall.linux.tests.http_servers import counted, ordered, rule

pytestmark = pytest.mark.host

PATIENCE_SECONDS = 60.0
CONNECTIONS = 200
BODY = json.dumps({"filling": "x" * (1 << 20)}, separators=(",", ":")).encode()
PATCHED = BODY[:-1] + b',"new":1}'
MOST_MIB = 64
"""That are held at once."""
MOST_MIB_OF_ONE = 16
"""Of one connection."""
LENGTH = ("content-length", str(len(BODY)))
STREAMS = 24
"""Of it, with a body of a little more than 1 MiB each."""


def peak_mib(proxy: Holder) -> float:
    """Read how much memory it had at once, at most."""
    lines = Path(f"/proc/{proxy.pid}/status").read_text().splitlines()
    [peak] = [line for line in lines if line.startswith("VmHWM")]
    return int(peak.split()[1]) / 1024


def body_of(connection: socket.socket) -> bytes:
    connection.settimeout(PATIENCE_SECONDS)
    with contextlib.closing(connection), connection.makefile("rb") as stream:
        while stream.readline() != b"\r\n":
            pass
        return stream.read()


async def test_bodies_that_find_no_room_pass_as_they_are_and_memory_stays_small(
    net, serving, dial, proxy
):
    together = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY[:-1])
        together.wait(PATIENCE_SECONDS)
        connection.sendall(BODY[-1:])

    serving(serve)
    await ordered(proxy, rule("Response", patch={"body": {"new": 1}}))
    connections = [dial(net.far) for _ in range(CONNECTIONS)]
    reading = [asyncio.to_thread(body_of, connection) for connection in connections]
    for connection in connections:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    bodies = asyncio.gather(*reading)
    await until_crowded(proxy, CONNECTIONS - MOST_MIB)
    together.set()
    found = await asyncio.wait_for(bodies, PATIENCE_SECONDS)
    crowded = (await counted(proxy))["crowded"]
    assert found.count(BODY) == crowded
    assert found.count(PATCHED) == CONNECTIONS - crowded > MOST_MIB / 2
    # Beside what is held: the program, buffers of all connections, and one body on its way from
    # what came to what it becomes.
    assert peak_mib(proxy) < MOST_MIB + 64


async def test_the_streams_of_one_connection_leave_room_for_others(net, proxy):
    together = threading.Event()

    def serve(peer: Peer) -> None:
        streams: list[int] = []
        while len(streams) < STREAMS:
            streams.append(peer.hear(h2.events.RequestReceived, 2 * len(streams) + 1).stream_id)
        for stream in streams:
            peer.state.send_headers(stream, [*http2_peer.OK, LENGTH])
            left = BODY[:-1]
            while left:
                room = peer.state.local_flow_control_window(stream)
                part = left[: min(room, peer.state.max_outbound_frame_size)]
                left = left[len(part) :]
                if part:
                    peer.state.send_data(stream, part)
                    peer.flush()
                else:
                    peer.listen()
        together.wait(PATIENCE_SECONDS)
        for stream in streams:
            peer.state.send_data(stream, BODY[-1:], end_stream=True)
        peer.flush()
        peer.last()

    with http2_peer.serving(net, serve):
        await ordered(proxy, rule("Response", patch={"body": {"new": 1}}))
        with http2_peer.client(net) as peer:
            for _ in range(STREAMS):
                peer.ask()
            listening = asyncio.create_task(asyncio.to_thread(taken_in, peer))
            await until_crowded(proxy, STREAMS - MOST_MIB_OF_ONE)
            together.set()
            lengths = await asyncio.wait_for(listening, PATIENCE_SECONDS)
    assert max(lengths) == len(PATCHED)
    crowded = (await counted(proxy))["crowded"]
    assert lengths.count(len(BODY)) == crowded
    assert STREAMS - MOST_MIB_OF_ONE <= crowded < STREAMS


async def until_crowded(proxy, count: int) -> None:
    """Wait until so many bodies have found no room."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (await counted(proxy))["crowded"] < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def taken_in(peer: Peer) -> list[int]:
    """Hear all streams to their ends; the length of each."""
    lengths: dict[int, int] = {}
    ended = 0
    while ended < STREAMS:
        for event in peer.listen() or ():
            if isinstance(event, h2.events.DataReceived):
                count = event.flow_controlled_length or 0
                lengths[event.stream_id] = lengths.get(event.stream_id, 0) + len(event.data or b"")
                peer.state.acknowledge_received_data(count, event.stream_id)
            ended += isinstance(event, h2.events.StreamEnded)
        peer.flush()
    return list(lengths.values())


async def test_what_a_patch_does_not_name_stays_as_it_is_written(net, serving, dial, proxy):
    written = (
        b'{"id": 12345678901234567890123, "price":1.50, "z":{"b":[1.0 ,2],"c":"\\u00e4"}, "a":0}'
    )

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(written) + written)

    serving(serve)
    await ordered(proxy, rule("Response", patch={"body": {"z": {"c": None, "d": 1}, "n": 2}}))
    connection = dial(net.far)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await asyncio.to_thread(body_of, connection) == (
        b'{"id":12345678901234567890123,"price":1.50,"z":{"b":[1.0 ,2],"d":1},"a":0,"n":2}'
    )
