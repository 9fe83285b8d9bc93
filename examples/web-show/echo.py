"""Something like a database: writes each line down and answers with what it then reads."""

import os
import socketserver
from pathlib import Path

TABLE = Path("/var/tmp/web-show/table")  # noqa: S108  (it is for this show, and goes with it)
TABLE.parent.mkdir(exist_ok=True)
HELD = os.open(TABLE, os.O_RDWR | os.O_CREAT)


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            os.pwrite(HELD, line, 0)
            self.wfile.write(os.pread(HELD, len(line), 0))


class Server(socketserver.ThreadingTCPServer):
    address_family = socketserver.socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


Server(("::", 7000), Echo).serve_forever()
