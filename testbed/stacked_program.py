"""The programs of a stack of faults: one that is hit by all of them, and one that it talks to.

python stacked_program.py peer
python stacked_program.py web SOCKET FOLDER FOLDER PEER

Neither needs anything but Python. What the one that is hit feels it tells over SOCKET, a line of
JSON for each line that it is sent.
"""

import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DELAYED, TWICE_DELAYED, OTHERWISE_DELAYED, LOST, CUT, LIMITED = range(7000, 7006)
"""Ports of the peer that answer each datagram with itself."""
NAMES = 53
OUTGOING = 8090
"""Port of the peer's web server."""
INCOMING = (8080, 8081)
"""Ports of the web servers of who is hit."""

PATIENCE_SECONDS = 1.0
TRIES = 3
"""How often what is timed is tried: the quickest counts, so that a busy host tells nothing."""
TRUE_ADDRESS = "192.0.2.1"


class _Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    """A page leaves in one packet: a second one would wait until the first is acknowledged."""

    def do_GET(self) -> None:
        """Say that all is well."""
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"well")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that went away."""


def _in_thread(run: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=run, args=arguments, daemon=True).start()


def _serve_pages(port: int) -> None:
    _in_thread(_Server(("", port), _Page).serve_forever)


def _serve_datagrams(port: int, answer: Callable[[bytes], bytes]) -> None:
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind(("", port))

    def serve() -> None:
        while True:
            with suppress(OSError):
                asked, sender = listening.recvfrom(65535)
                listening.sendto(answer(asked), sender)

    _in_thread(serve)


def _resolved(query: bytes) -> bytes:
    """Answer a query of one question with `TRUE_ADDRESS`."""
    end = query.index(0, 12) + 5
    head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0)
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(TRUE_ADDRESS)
    return head + query[12:end] + record


def peer() -> None:
    """Answer for ever."""
    for port in range(DELAYED, LIMITED + 1):
        _serve_datagrams(port, bytes)
    _serve_datagrams(NAMES, _resolved)
    _serve_pages(OUTGOING)
    threading.Event().wait()


class Web:
    """Who is hit: it holds files open, and asks its peer for answers, names and pages."""

    def __init__(self, slow: str, broken: str, peer: str) -> None:
        self._slow, self._peer = slow, peer
        self._read = os.open(f"{slow}/file", os.O_RDWR)
        self._written = os.open(f"{broken}/file", os.O_RDWR)
        os.chdir(broken)
        for port in INCOMING:
            _serve_pages(port)
        self._kept = HTTPConnection(peer, OUTGOING, timeout=PATIENCE_SECONDS)

    def look(self) -> dict[str, Any]:
        """Feel everything at once; times in milliseconds."""
        looks: dict[str, Callable[[], Any]] = {
            "delayed": lambda: self._echo(DELAYED),
            "twice delayed": lambda: self._echo(TWICE_DELAYED),
            "otherwise delayed": lambda: self._echo(OTHERWISE_DELAYED),
            "lost": lambda: self._echo(LOST),
            "cut": lambda: self._echo(CUT),
            "limited": self._spread,
            "failing name": lambda: self._name("a.gone.example"),
            "misled name": lambda: self._name("b.lost.example"),
            "other name": lambda: self._name("c.kept.example"),
            "page": lambda: self._page(HTTPConnection(self._peer, OUTGOING, timeout=3)),
            "page over kept": lambda: self._page(self._kept),
            "read": lambda: _timed(lambda: os.pread(self._read, 1, 0)),
            "sync": lambda: _timed(lambda: os.fsync(self._read)),
            "permissions": lambda: Path(self._slow, "file").stat().st_mode & 0o777,
            "write": lambda: _outcome(lambda: os.pwrite(self._written, b"x", 0)),
        }
        with ThreadPoolExecutor(len(looks)) as pool:
            began = {name: pool.submit(_told, look) for name, look in looks.items()}
            return {name: one.result() for name, one in began.items()}

    def _echo(self, port: int) -> float | None:
        """Quickest round trip; None where nothing comes back."""
        found = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(0.5)
            asking.connect((self._peer, port))
            for number in range(TRIES):
                began = time.perf_counter()
                with suppress(OSError):  # a packet that is cut is refused already when it is sent
                    asking.send(str(number).encode())
                    while asking.recv(64) != str(number).encode():
                        pass
                    found.append(time.perf_counter() - began)
                if not found:
                    return None
        return min(found) * 1000

    def _spread(self) -> float | None:
        """How far apart the answers come to three datagrams sent together."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(PATIENCE_SECONDS)
            asking.connect((self._peer, LIMITED))
            for _ in range(3):
                asking.send(bytes(1400))
            came = []
            with suppress(OSError):
                while len(came) < 3:  # noqa: PLR2004
                    asking.recv(2000)
                    came.append(time.perf_counter())
        return (came[-1] - came[0]) * 1000 if came else None

    def _name(self, name: str) -> tuple[str, float] | None:
        """What a name leads to, and how long that took."""
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        query = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(PATIENCE_SECONDS)
            asking.connect((self._peer, NAMES))
            began = time.perf_counter()
            asking.send(query)
            try:
                answer = asking.recv(65535)
            except OSError:
                return None
            took = (time.perf_counter() - began) * 1000
        told = int.from_bytes(answer[6:8]) > 0
        at = len(query) + 12
        return (socket.inet_ntoa(answer[at : at + 4]) if told else f"code {answer[3] & 15}"), took

    def _page(self, connection: HTTPConnection) -> tuple[int, float] | None:
        """Code of a page, and how long it took; one connection of before may have been reset."""
        for _ in range(2):
            began = time.perf_counter()
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
            except (OSError, HTTPException):
                connection.close()
            else:
                return answer.status, (time.perf_counter() - began) * 1000
        return None


def _told(look: Callable[[], Any]) -> Any:  # noqa: ANN401  (whatever it sees)
    """Look; a failure is an answer."""
    try:
        return look()
    except Exception as failed:  # noqa: BLE001  (whatever it is, it is told)
        return f"{type(failed).__name__}: {failed}"


def _timed(act: Callable[[], object]) -> float:
    found = []
    for _ in range(TRIES):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return min(found) * 1000


def _outcome(act: Callable[[], object]) -> int:
    """Error number; 0 where there is none."""
    try:
        act()
    except OSError as failed:
        return failed.errno or -1
    return 0


def web(listening: str, slow: str, broken: str, peer_address: str) -> None:
    """Tell for ever what is felt."""
    hit = Web(slow, broken, peer_address)
    with suppress(FileNotFoundError):
        Path(listening).unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(listening)
        server.listen()
        while True:
            client, _ = server.accept()
            with client, client.makefile("rw") as lines, suppress(OSError):
                for _ in lines:
                    lines.write(json.dumps(hit.look()) + "\n")
                    lines.flush()


if __name__ == "__main__":
    {"peer": peer, "web": web}[sys.argv[1]](*sys.argv[2:])
