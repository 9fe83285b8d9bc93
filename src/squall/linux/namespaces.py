"""Network namespaces of targets: found, entered for one call, read from outside."""

import asyncio
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from squall.errors import TargetGone, TryAgain, Unsupported
from squall.injection.world.target import Target

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
"""From linux/sched.h."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Namespace:
    """The network namespace of a target, as it is now."""

    path: Path
    """`/proc/PID/ns/net`."""
    inode: int
    """Tells it from every other namespace that exists at this moment."""


def of(target: Target) -> Namespace:
    """Find the network namespace of a target.

    Raises:
        TargetGone: its process has ended, or its number belongs to another one by now.
        Unsupported: we may not see it.
    """
    path = Path(f"/proc/{target.pid}/ns/net")
    try:
        inode = path.stat().st_ino
    except (FileNotFoundError, ProcessLookupError):
        raise TargetGone(f"{target.id}: process {target.pid} has ended") from None
    except PermissionError as refused:
        why = f"{path} of {target.id} may not be seen; grant CAP_SYS_PTRACE"
        raise Unsupported(why) from refused
    if not alive(target):  # asked last, so that what was found belonged to it
        raise TargetGone(f"{target.id}: process {target.pid} has ended")
    return Namespace(path, inode)


def alive(target: Target) -> bool:
    """Is `target.pid` still the process that was resolved?"""
    return lives(target.pid, target.started)


def lives(pid: int, ticks: int) -> bool:
    """Is it the process that was started then?

    The first one of a container waits for all others when it ends, and has no namespaces by then:
    nothing can be done in it any more.
    """
    try:
        with suppress(PermissionError):  # we may not know
            Path(f"/proc/{pid}/ns/net").stat()
        return started(pid) == ticks
    except (FileNotFoundError, ProcessLookupError):
        return False


def started(pid: int) -> int:
    """Read when a process was started, in clock ticks after boot.

    Raises:
        ProcessLookupError: it has ended, be it waited for or not.
        FileNotFoundError: there is none.
    """
    # The name in field 2 may hold spaces and brackets; field 3 follows the last bracket.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(f"process {pid} has ended")
    return int(fields[19])


def default_device(target: Target) -> str:
    """Name the device of the default route, IPv4 first; else the first that is not loopback.

    Raises:
        TargetGone: its process has ended.
        TryAgain: it has no device but loopback.
    """
    net = Path(f"/proc/{target.pid}/net")
    try:
        for line in (net / "route").read_text().splitlines()[1:]:
            device, destination, _, _, _, _, _, mask, *_ = line.split()
            if destination == mask == "00000000":
                return device
        for line in _lines(net / "ipv6_route"):
            destination, length, *_, device = line.split()
            if not int(destination, 16) and length == "00" and device != "lo":
                return device
        devices = [line.partition(":")[0].strip() for line in _lines(net / "dev")[2:]]
    except (FileNotFoundError, ProcessLookupError):
        raise TargetGone(f"{target.id}: process {target.pid} has ended") from None
    for device in devices:
        if device != "lo":
            return device
    raise TryAgain(f"{target.id} has no network device yet; it will be tried again")


def addresses(target: Target) -> frozenset[str]:
    """List every IPv4 and IPv6 address of a target's devices.

    Raises:
        TargetGone: its process has ended.
    """
    net = Path(f"/proc/{target.pid}/net")
    try:
        four = _lines(net / "fib_trie")
        six = [line.split()[0] for line in _lines(net / "if_inet6")]
    except (FileNotFoundError, ProcessLookupError):
        raise TargetGone(f"{target.id}: process {target.pid} has ended") from None
    # The line "/32 host LOCAL" follows the one with the address.
    local = {
        above.split()[-1]
        for above, line in pairwise(four)
        if line.split()[:3] == ["/32", "host", "LOCAL"]
    }
    return frozenset(local | {str(IPv6Address(int(digits, 16))) for digits in six})


def gateway(target: Target, device: str = "") -> str | None:
    """Tell the router of the default route, IPv4 first; None where there is none.

    Args:
        target: whose.
        device: only a route that leaves by it counts; empty means any.

    Raises:
        TargetGone: its process has ended.
    """
    net = Path(f"/proc/{target.pid}/net")
    try:
        for line in (net / "route").read_text().splitlines()[1:]:
            by, destination, router, _, _, _, _, mask, *_ = line.split()
            if destination == mask == "00000000" and router != mask and device in {"", by}:
                return str(IPv4Address(int(router, 16).to_bytes(4, sys.byteorder)))
        for line in _lines(net / "ipv6_route"):
            destination, length, _, _, router, *_, by = line.split()
            fits = by != "lo" and device in {"", by}
            if length == "00" and int(router, 16) and not int(destination, 16) and fits:
                address = IPv6Address(int(router, 16))
                return None if address.is_link_local else str(address)
    except (FileNotFoundError, ProcessLookupError):
        raise TargetGone(f"{target.id}: process {target.pid} has ended") from None
    return None


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def inside(namespace: Namespace, act: Callable[[], T]) -> T:
    """Call `act` in a thread of its own that has entered a network namespace.

    For opening sockets: they stay in the namespace that they were opened in. setns(2) with
    CLONE_NEWNET moves the calling thread alone, and this thread ends with the call, so that no
    other code of the agent ever runs in there. It costs 0.1 ms; a child process costs 50.

    Raises:
        TargetGone: the namespace is gone.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def report(value: T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(value)  # type: ignore[arg-type]
        else:
            done.set_exception(error)

    def run() -> None:
        value, error = None, None
        try:
            _enter(namespace)
            value = act()
        except Exception as failure:  # noqa: BLE001  (raised again where it is awaited)
            error = failure
        loop.call_soon_threadsafe(report, value, error)

    threading.Thread(target=run, name=f"inside-{namespace.inode}", daemon=True).start()
    return await done


def _enter(namespace: Namespace) -> None:
    try:
        net = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as gone:
        raise TargetGone(f"{namespace.path} is gone") from gone
    try:
        if os.fstat(net).st_ino != namespace.inode:
            raise TargetGone(f"{namespace.path} belongs to another process by now")
        if _libc.setns(net, CLONE_NEWNET):
            code = ctypes.get_errno()
            raise TryAgain(f"setns to {namespace.path}: {os.strerror(code)}")
    finally:
        os.close(net)
