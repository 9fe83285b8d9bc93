"""What visitors see: a page made of the backend's answer."""

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

from outside import advertisement


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        advertisement()
        try:
            with urlopen("http://backend:8080/", timeout=2) as answer:
                body = b"<h1>web-show</h1><p>" + answer.read() + b"</p>\n"
        except OSError as failure:
            self.send_error(502, f"backend: {failure}")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet: a request comes every 100 ms."""


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


Server(("::", 8080), Page).serve_forever()
