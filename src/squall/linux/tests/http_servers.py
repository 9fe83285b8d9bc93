"""Servers in a namespace, and a proxy in front of them: HTTP/1.1, TLS, HTTP/2, gRPC."""

import http.server
import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events

from squall.linux.holder import Holder
from squall.linux.tests.two_namespaces import inside

LEASE_SECONDS = 5.0


def rule(
    target: str = "Request", port: int = 80, source: str = "a", **other: Any
) -> dict[str, Any]:
    return {"source": source, "target": target, "port": port, **other}


async def ordered(proxy: Holder, *rules: dict[str, Any], **other: Any) -> None:
    asked = {"rules": list(rules), "lease": LEASE_SECONDS, "deadline": None, **other}
    await proxy.ask("set", asked)


async def counted(proxy: Holder, source: str = "a") -> dict[str, int]:
    counters: dict[str, int] = (await proxy.ask("state"))["counters"][source]
    return counters


def listening(netns: str, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(netns):
        opened = socket.socket(family)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((address, port))
    opened.listen(64)
    return opened


def dialled(netns: str, address: str, port: int) -> socket.socket:
    """Connect from inside a namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(netns):
        opened = socket.socket(family)
    opened.settimeout(5)
    try:
        opened.connect((address, port))
    except OSError:
        opened.close()
        raise
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


class Server:
    """Gives each connection to a function, in a thread of its own."""

    def __init__(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        self._listener, self._serve = listener, serve
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        try:
            self._serve(connection)
        except OSError:
            pass  # the client is gone, or a rule has torn the connection
        finally:
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Mirror(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked, as JSON."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        asked = {
            "peer": self.client_address[:2],
            "method": self.command,
            "path": self.path,
            "headers": self.headers.items(),
            "body": body,
        }
        answer = json.dumps(asked).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815  (names that the library calls)

    def log_message(self, *_: object) -> None:
        pass


def mirror(connection: socket.socket) -> None:
    address = connection.getpeername()
    Mirror(connection, address, None)  # it only keeps its server


def encrypted(
    context: ssl.SSLContext, serve: Callable[[socket.socket], None]
) -> Callable[[socket.socket], None]:
    def served(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as opened:
            serve(opened)

    return served


MESSAGE = b"\x00\x00\x00\x00\x03abc"
"""One message of gRPC."""


def calls(connection: socket.socket) -> None:
    """Answer every call of HTTP/2 with five messages of gRPC and a good end."""
    config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
    state = h2.connection.H2Connection(config)
    state.initiate_connection()
    connection.sendall(state.data_to_send())
    while data := connection.recv(65536):
        for event in state.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                asked = dict(event.headers or [])
                answer = [
                    (":status", "200"),
                    ("content-type", "application/grpc"),
                    ("x-path", asked[":path"]),
                ]
                state.send_headers(event.stream_id, answer)
                for _ in range(5):
                    state.send_data(event.stream_id, MESSAGE)
                state.send_headers(
                    event.stream_id, [("grpc-status", "0"), ("x-own", "1")], end_stream=True
                )
        connection.sendall(state.data_to_send())


@dataclass
class Called:
    """What came of a call."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    reset: int | None = None


def call(connection: socket.socket, *paths: str, body: bytes = MESSAGE) -> list[Called]:
    """Make calls of gRPC, all at once, on one connection of HTTP/2."""
    config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
    state = h2.connection.H2Connection(config)
    state.initiate_connection()
    made: dict[int, Called] = {}
    for path in paths:
        stream = state.get_next_available_stream_id()
        made[stream] = Called()
        head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", path)]
        state.send_headers(
            stream, [*head, ("content-type", "application/grpc"), ("te", "trailers")]
        )
        state.send_data(stream, body, end_stream=True)
    connection.sendall(state.data_to_send())
    left = set(made)
    while left and (data := connection.recv(65536)):
        for event in state.receive_data(data):
            match event:
                case h2.events.ResponseReceived():
                    made[event.stream_id].headers = dict(event.headers or [])
                case h2.events.DataReceived():
                    made[event.stream_id].data += event.data or b""
                case h2.events.TrailersReceived():
                    made[event.stream_id].trailers = dict(event.headers or [])
                case h2.events.StreamReset():
                    made[event.stream_id].reset = int(event.error_code or 0)
                    left.discard(event.stream_id)
                case h2.events.StreamEnded():
                    left.discard(event.stream_id)
        connection.sendall(state.data_to_send())
    return list(made.values())
