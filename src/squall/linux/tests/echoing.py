"""A web server in a namespace that tells what it saw, and clients of it.

python echoing.py PORT [CERTIFICATE KEY]
"""

import http.client
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, has_dualstack_ipv6
from typing import Any

from squall.injection.world.target import Target

SECONDS = 5.0


class Echo(BaseHTTPRequestHandler):
    """Answers with the request as it arrived."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Say what was asked; JSON."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = {
            "client": self.client_address[0].removeprefix("::ffff:"),
            "method": self.command,
            "path": self.path,
            "headers": dict(self.headers),
            "body": body.decode(),
        }
        text = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  (names of http.server)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Of both families at once."""

    address_family = AF_INET6

    def server_bind(self) -> None:
        """Take IPv4, too."""
        if has_dualstack_ipv6():
            self.socket.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that went away."""


@contextmanager
def serving(where: Target, port: int, *tls: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have a server in a namespace, ready."""
    enter = ("nsenter", f"--net=/proc/{where.pid}/ns/net", "--")
    command = (*enter, sys.executable, __file__, str(port), *tls)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"serving\n"
            yield process
        finally:
            process.kill()


class Connection(http.client.HTTPConnection):
    """A client over a socket that was opened elsewhere; it never connects anew."""

    def __init__(self, sock: Any, host: str, port: int) -> None:
        super().__init__(host, port, timeout=SECONDS)
        sock.settimeout(SECONDS)
        sock.connect((host, port))
        self.sock, self.auto_open = sock, 0

    def ask(
        self, method: str, path: str, body: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Give the code of the answer, and what it says."""
        self.request(method, path, body, headers)
        answer = self.getresponse()
        text = answer.read()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode()


def main() -> None:
    """Serve for ever."""
    server = Server(("::", int(sys.argv[1])), Echo)
    if sys.argv[2:]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*sys.argv[2:4])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
