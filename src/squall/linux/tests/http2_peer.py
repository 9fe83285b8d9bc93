"""Peers of HTTP/2, and everything that they heard."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import h2.config
import h2.connection
import h2.events
import h2.settings

from squall.linux.tests.http_servers import Server, dialled, listening, rule
from squall.linux.tests.two_namespaces import TwoNamespaces

_Event = TypeVar("_Event", bound=h2.events.Event)

NEAR = TwoNamespaces.NEAR
UNMATCHED = rule(path="/never")
GET = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
OK = [(":status", "200")]
PATIENCE_SECONDS = 20.0
REFUSED_STREAM = 7
HEADERS, RESET, SETTINGS, GOAWAY = 1, 3, 4, 7
"""Kinds of frames: RFC 9113, section 6."""
EMPTY_SETTINGS = bytes((0, 0, 0, SETTINGS, 0, 0, 0, 0, 0))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client begins with."""
HEADER = 9
"""Octets before the content of a frame."""
ANSWER_TO_1 = b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88"
"""HEADERS of stream 1, which is its end: status 200."""


class Peer:
    """One end of a connection of HTTP/2, and everything that it heard."""

    def __init__(
        self,
        connection: socket.socket,
        *,
        is_client: bool,
        limits: dict[h2.settings.SettingCodes, int] | None = None,
    ) -> None:
        connection.settimeout(PATIENCE_SECONDS)
        config = h2.config.H2Configuration(client_side=is_client, header_encoding="utf-8")
        self.state = h2.connection.H2Connection(config)
        self.heard: list[h2.events.Event] = []
        self._connection = connection
        self._held = b""
        if limits:
            values: dict[Any, int] = {**self.state.local_settings, **limits}
            self.state.local_settings = h2.settings.Settings(client=False, initial_values=values)
        self.state.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self._connection.sendall(self.state.data_to_send())

    def listen(self) -> list[h2.events.Event] | None:
        """Receive once; None is the end."""
        data = self._connection.recv(65536)
        if not data:
            return None
        events = self.state.receive_data(data)
        self.heard += events
        self.flush()
        return events

    def hear(self, kind: type[_Event], stream: int | None = None) -> _Event:
        """Listen until something of a kind was heard."""
        while True:
            for event in self.heard:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    return event
            assert self.listen() is not None, f"the connection has ended without {kind.__name__}"

    def last(self) -> None:
        """Stay to the end of the connection."""
        while self.listen() is not None:
            pass

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Kind, stream and content of all that comes; the library bears nothing after a GOAWAY."""
        while True:
            held = self._held.removeprefix(PREFACE)  # which is no frame, and comes as a whole
            while len(held) >= HEADER and len(held) >= HEADER + (size := int.from_bytes(held[:3])):
                frame = held[3], int.from_bytes(held[5:9]), held[HEADER : HEADER + size]
                self._held = held = held[HEADER + size :]
                yield frame
            if not (data := self._connection.recv(65536)):
                return
            self._held += data

    def say(self, octets: bytes) -> None:
        """Send frames that the library would not."""
        self._connection.sendall(octets)

    def send(self, stream: int, most: int) -> int:
        """Send what there is room for, and the end of the stream behind `most` octets."""
        sent = 0
        while sent < most and (room := self.state.local_flow_control_window(stream)):
            count = min(room, most - sent, self.state.max_outbound_frame_size)
            sent += count
            self.state.send_data(stream, bytes(count), end_stream=sent == most)
        return sent

    def ask(self, head: list[tuple[str, str]] | None = None) -> int:
        stream: int = self.state.get_next_available_stream_id()
        self.state.send_headers(stream, head or GET, end_stream=True)
        self.flush()
        return stream

    def until(self, wanted: int, stream: int) -> list[tuple[int, int, bytes]]:
        """Take frames up to the first of a kind in a stream."""
        frames = []
        for frame in self.frames():
            frames.append(frame)
            if frame[:2] == (wanted, stream):
                return frames
        raise AssertionError(f"the connection has ended after {frames}")


def said(event: Any) -> dict[Any, Any]:
    return dict(event.headers)


@contextlib.contextmanager
def serving(net: TwoNamespaces, serve: Callable[[Peer], None]) -> Iterator[None]:
    def served(connection: socket.socket) -> None:
        serve(Peer(connection, is_client=False))

    with contextlib.closing(Server(listening(net.near, "::", 80), served)):
        yield


@contextlib.contextmanager
def client(net: TwoNamespaces) -> Iterator[Peer]:
    with dialled(net.far, NEAR, 80) as connection:
        yield Peer(connection, is_client=True)
