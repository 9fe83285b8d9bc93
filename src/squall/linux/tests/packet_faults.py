"""Faults for the packets process, in few words."""

import asyncio
import os
import select
import signal
from collections.abc import Callable

from squall.injection.world.network import Impairment, Peers
from squall.linux.packets import Held, Lane, PacketsProcess, PacketsState, Rule

MS = 1000
SLACK_MS = 8  # of a busy machine: what is shown is that a fault acts, not how exactly


def end(process: PacketsProcess) -> None:
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    signal.pidfd_send_signal(fd, signal.SIGKILL)
    assert select.select([fd], [], [], 5)[0], "not gone after SIGKILL"
    os.close(fd)


def rule(impairment: Impairment, *peers: str, source: str = "a", port: int = 0) -> Rule:
    return Rule(source, tuple(Peers(p, port) for p in peers) or None, impairment)


def on_eth0(*rules: Rule, nft: str = "", **times: float) -> Held:
    return Held(nft=nft, lanes=(Lane("eth0", rules),) if rules else (), **times)


def drops(*addresses: str) -> str:
    rules = "".join(f"ip daddr {address} counter drop\n" for address in addresses)
    return (
        "add table inet squall_network { flags owner; }\n"
        "delete table inet squall_network\n"
        "table inet squall_network {\n flags owner\n chain out {\n"
        f"type filter hook output priority 0\n{rules}\n}}\n}}\n"
    )


def holds(ms: float, asked: float) -> bool:
    return asked - 0.1 <= ms < asked + SLACK_MS


async def until(process: PacketsProcess, happens: Callable[[PacketsState], bool]) -> None:
    async with asyncio.timeout(5):
        while not happens(await process.state()):  # noqa: ASYNC110  (asks another process)
            await asyncio.sleep(0.001)  # the kernel gives no event for it
