"""Queries of our own, sent from inside a network namespace."""

import asyncio
import secrets
import socket
from ipaddress import ip_address

from squall.injection.world.names import ADDRESS_TYPES, Reply
from squall.linux.namespaces import Namespace, inside

PORT = 53
_LONGEST = 65535


def servers(resolv_conf: str) -> list[str]:
    """Read the name servers of a resolv.conf(5); without any, a resolver asks its own host."""
    lines = (line.split() for line in resolv_conf.splitlines())
    named = [line[1] for line in lines if len(line) > 1 and line[0] == "nameserver"]
    return [server for server in named if _is_address(server)] or ["127.0.0.1"]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


async def ask(
    namespace: Namespace, server: str, name: str, record_type: int, *, within_seconds: float
) -> Reply | None:
    """Ask one server over UDP, once.

    Returns:
        None where the query could not be sent, or the way to the server is refused.

    Raises:
        TargetGone: the namespace is gone.
    """
    # Imported here: few faults have to do with names, and it costs 5 MiB.
    import dns.exception  # noqa: PLC0415
    import dns.message  # noqa: PLC0415
    import dns.rdatatype  # noqa: PLC0415

    query = dns.message.make_query(
        name, dns.rdatatype.RdataType.make(record_type), id=secrets.randbits(16)
    )
    loop = asyncio.get_running_loop()
    try:
        asking = await inside(namespace, lambda: _connected(server))
    except OSError:  # no route
        return None
    with asking:
        began = loop.time()
        try:
            await loop.sock_sendall(asking, query.to_wire())
            async with asyncio.timeout(within_seconds):
                while True:
                    received = await loop.sock_recv(asking, _LONGEST)
                    after_ms = (loop.time() - began) * 1000
                    try:
                        answer = dns.message.from_wire(received, ignore_trailing=True)
                    except dns.exception.DNSException:
                        continue
                    if query.is_response(answer):
                        break
        except TimeoutError:
            return Reply(after_ms=within_seconds * 1000)
        except OSError:  # cut by another fault, or nobody listens
            return None
    addresses = tuple(
        record.address
        for found in answer.answer
        if found.rdtype in ADDRESS_TYPES
        for record in found
    )
    truncated = bool(answer.flags & dns.flags.TC)
    return Reply(int(answer.rcode()), truncated, addresses, after_ms)


def _connected(server: str) -> socket.socket:
    """Find out here what a device is in `fe80::53%eth0`: each namespace has numbers of its own."""
    found = socket.getaddrinfo(server, PORT, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    family, kind, _, _, end = found[0]
    opened = socket.socket(family, kind)
    try:
        opened.setblocking(False)
        opened.connect(end)
    except OSError:
        opened.close()
        raise
    return opened
