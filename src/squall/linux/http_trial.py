"""Can HTTP exchanges be changed here? Tried on a server of our own, in a namespace made for it."""

import asyncio
import socket

from squall.injection.world.http import HttpState, Replace, Rule
from squall.injection.world.target import Target
from squall.linux import namespaces, throw_away
from squall.linux.exchanges import LinuxHttp
from squall.node.doctor import Ability, Capability

_LEASE_SECONDS = 10.0
_ANSWER_SECONDS = 2.0
_CODE = 503
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_MEANS = "squall-node http, led to by BPF at socket lookup"


async def proxied(name: str, target: Target) -> Capability:
    """Replace the code of a response in a throw-away namespace.

    Args:
        name: of what is tried.
        target: whose loopback device is up, and which nobody else uses.

    Raises:
        SquallError, OSError: it cannot be done; the reason.
    """
    listening = await namespaces.inside(namespaces.of(target), _listening)
    port = listening.getsockname()[1]
    rule = Rule("trial/.", "Response", port, replace=Replace(code=_CODE))
    server = await asyncio.start_server(_answer, sock=listening)
    with throw_away.folder() as run:
        http = LinuxHttp(run, lease_seconds=_LEASE_SECONDS)
        try:
            await http.apply(target, HttpState((rule,)))
            answer = await http.request(
                target, port, method="GET", path="/", headers={}, within_seconds=_ANSWER_SECONDS
            )
            kept = await http.keeps_addresses(target)
        finally:
            await http.end_all()
            server.close()
    if answer.status != _CODE:
        why = f"a response that was to be changed came as {answer.status or answer.failure}"
        return Capability(name, Ability.MISSING, "", why)
    if not kept:
        why = "servers see our address in place of their clients': no BPF for getpeername"
        return Capability(name, Ability.FALLBACK, _MEANS, why)
    return Capability(name, Ability.OK, _MEANS)


def _listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(_REPLY)
    await writer.drain()
    writer.close()
