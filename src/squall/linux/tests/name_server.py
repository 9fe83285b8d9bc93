"""A name server for tests, and questions to it, in network namespaces."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import dns.message
import dns.query
import dns.rrset

from squall.injection.world.target import Target
from squall.linux.tests.two_namespaces import inside

ADDRESS = "192.0.2.53"
"""Where every name leads, by its real server."""
SECONDS = 2.0


@dataclass
class NameServer:
    """Answers at one address, over UDP and TCP, until it is closed."""

    address: str
    seen: list[tuple[bytes, str]] = field(default_factory=list)
    """Every query, and the address it came from."""
    sockets: list[socket.socket] = field(default_factory=list)

    def answer(self, query: bytes, sender: str) -> bytes:
        """Answer what is a query with one address, and anything else with itself, backwards."""
        self.seen.append((query, sender))
        try:
            read = dns.message.from_wire(query)
            reply = dns.message.make_response(read)
            name = read.question[0].name
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", ADDRESS))
            return reply.to_wire()
        except Exception:  # noqa: BLE001  (whatever it is, it is no query)
            return query[::-1]

    def datagrams(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                query, sender = listening.recvfrom(65535)
                if not sender:  # it is being closed
                    return
                listening.sendto(self.answer(query, sender[0]), sender)

    def streams(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                led, sender = listening.accept()
                self.sockets.append(led)
                threading.Thread(target=self.stream, args=(led, sender[0]), daemon=True).start()

    def stream(self, led: socket.socket, sender: str) -> None:
        with contextlib.suppress(OSError), led:
            received = b""
            while chunk := led.recv(65535):
                received += chunk
                while len(received) >= 2:
                    end = 2 + int.from_bytes(received[:2])
                    if len(received) < end:
                        break
                    reply = self.answer(received[2:end], sender)
                    received = received[end:]
                    led.sendall(len(reply).to_bytes(2) + reply)


def netns(where: Target) -> str:
    return f"/proc/{where.pid}/ns/net"


@contextlib.contextmanager
def serving(where: Target, *addresses: str, port: int = 53) -> Iterator[dict[str, NameServer]]:
    """Name servers at several addresses of one namespace."""
    found = {}
    for address in addresses:
        server = found[address] = NameServer(address)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside(netns(where)):
            end = socket.getaddrinfo(address, port, family, socket.SOCK_DGRAM)[0][4]
            udp = socket.socket(family, socket.SOCK_DGRAM)
            udp.bind(end)
            tcp = socket.create_server(end, family=family)
        server.sockets += [udp, tcp]
        for serve, listening in ((server.datagrams, udp), (server.streams, tcp)):
            threading.Thread(target=serve, args=(listening,), daemon=True).start()
    try:
        yield found
    finally:
        for server in found.values():
            for one in server.sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()


def opened(where: Target, server: str, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    """A socket of a resolver that lives long, connected to a server."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with inside(netns(where)):
        made = socket.socket(family, kind)
        end = socket.getaddrinfo(server, 53, family, kind)[0][4]
    made.settimeout(SECONDS)
    try:
        made.connect(end)
    except OSError:
        made.close()
        raise
    return made


def sent(over: socket.socket, query: dns.message.Message) -> dns.message.Message:
    """Ask over a socket that is open."""
    if over.type == socket.SOCK_STREAM:
        dns.query.send_tcp(over, query)
        return dns.query.receive_tcp(over)[0]
    over.send(query.to_wire())
    return dns.message.from_wire(over.recv(65535), ignore_trailing=True)


def asked(
    where: Target, server: str, name: str, kind: str = "A", *, tcp: bool = False, **more: int
) -> dns.message.Message:
    """Ask once, with a socket of its own."""
    query = dns.message.make_query(name, kind, **more)
    with opened(where, server, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as over:
        reply = sent(over, query)
    assert query.is_response(reply)
    return reply


def says(reply: dns.message.Message) -> str:
    """Response code, or the addresses."""
    found = [record.address for rrset in reply.answer for record in rrset]
    return " ".join(found) or dns.rcode.to_text(reply.rcode())
