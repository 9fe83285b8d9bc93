"""Asks the echo once for each request, as a service asks its database."""

import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Backend(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        begun = time.perf_counter()
        try:
            with socket.create_connection(("echo", 7000), timeout=2) as echo:
                echo.sendall(b"hello\n")
                answer = echo.makefile("rb").readline()
        except OSError as failure:
            self.send_error(502, f"echo: {failure}")
            return
        body = b"%s in %.1f ms\n" % (answer.strip(), (time.perf_counter() - begun) * 1000)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet: a request comes every 100 ms."""


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


Server(("::", 8080), Backend).serve_forever()
