"""Client of `squall-node packets`, a process that holds packet faults in one network namespace.

The process ends with whoever holds it last: it lives while a client is connected, for one lease
after the connection is gone, and never past its deadline. Whatever ends it, SIGKILL included, the
kernel takes back all that it held.
"""

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from squall.errors import TryAgain, Unsupported
from squall.injection.world.network import Counters, Impairment, Peers
from squall.linux.json_lines import ANSWER_SECONDS, Connection
from squall.linux.processes import send, started

START_SECONDS = 5.0
"""For the process to be ready: it takes milliseconds, so later means that the host is stuck."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to the packets of one device that go to `peers`."""

    source: str
    """Which live fault asked for it; names its counters."""
    peers: tuple[Peers, ...] | None
    """None: all that leaves the device, but ARP and IPv6 neighbour discovery."""
    impairment: Impairment


@dataclass(frozen=True, slots=True)
class Lane:
    """The rules of one device; a packet that several match passes through each, in order."""

    device: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """All that one process holds inside its namespace."""

    nft: str = ""
    """A complete script that replaces our table, with `flags owner`; empty: no table."""
    lanes: tuple[Lane, ...] = ()
    lease_seconds: float = 60.0
    """How long it is held after the connection is gone."""
    deadline: float | None = None
    """Moment of boot time, in seconds, at which it ends in any case."""


@dataclass(frozen=True, slots=True)
class PacketsState:
    """What a process holds, and what it did so far."""

    held: Held
    counters: Mapping[str, Counters]
    """Of the lanes, by source; those of the nft table are in `PacketsProcess.list`."""
    unsent: int
    """Frames lost without being asked: more were waiting than memory is given for, or the device
    did not take them."""


def program() -> str:
    """Find `squall-node`: beside this Python, where its wheel puts it, else on PATH.

    Raises:
        Unsupported: it is in neither place.
    """
    beside = Path(sys.executable).with_name("squall-node")
    found = str(beside) if beside.exists() else shutil.which("squall-node")
    if found is None:
        raise Unsupported(
            f"squall-node is neither at {beside} nor on PATH; install the package squall-node"
        )
    return found


class PacketsProcess:
    """One running `squall-node packets`, seen through a connection to it.

    Only one connection counts: a newer one replaces this, which then is `gone`. Calls may overlap;
    the process answers them in order.
    """

    def __init__(self, connection: Connection, log: Path) -> None:
        self._connection = connection
        self._log = log
        self.pid = connection.pid
        """Its process id, in our PID namespace."""
        self._started = started(self.pid) or 0
        self.gone = connection.gone
        """Set when the connection is lost. Unless `close` was called, or another client took over,
        the process has ended and nothing of what it held is left: the fault has failed open."""

    @classmethod
    async def start(cls, netns: Path | str, path: Path, *, lease_seconds: float) -> Self:
        """Start a process inside `netns` and connect to it.

        It is no child of ours: it survives us by one lease. A socket left at `path` is replaced; so
        try `connect` first. What the process logs stands beside it, in `<path>.log`.

        Args:
            netns: as `/proc/PID/ns/net`.
            path: of the Unix socket it listens on; its folder must exist.
            lease_seconds: until the first `set`.

        Raises:
            Unsupported: the host lacks something; the message says what.
            TryAgain: it did not come up in time, or the namespace is gone.
        """
        arguments = ("packets", "--netns", str(netns), "--socket", str(path))
        log = _log_of(path)
        with log.open("wb") as stderr:
            child = await asyncio.create_subprocess_exec(
                program(),
                *arguments,
                "--lease",
                str(lease_seconds),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
            )
        # The child hands over to a session of its own and exits once the socket is there.
        try:
            async with asyncio.timeout(START_SECONDS):
                status = await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()
            raise TryAgain(f"squall-node in {netns} was not ready in {START_SECONDS} s") from None
        if status:
            failure = Unsupported if status == _HOST_LACKS else TryAgain
            raise failure(f"squall-node in {netns}: {_last_words(log) or f'exit status {status}'}")
        connected = await cls.connect(path)
        if connected is None:
            raise TryAgain(f"squall-node in {netns} ended right after its start; see {log}")
        return connected

    @classmethod
    async def connect(cls, path: Path) -> Self | None:
        """Connect to a process started earlier, by this agent or the one before it.

        Returns:
            None when nobody listens at `path`: it has ended, and holds nothing.
        """
        connection = await Connection.open(path)
        return None if connection is None else cls(connection, _log_of(path))

    async def set(self, held: Held) -> None:
        """Make exactly `held` be in force; on an error nothing has changed.

        The same again changes nothing, and packets waiting in an unchanged lane go on waiting.

        Raises:
            InvalidFault: a rule that makes no sense, with its reason.
            Unsupported: the kernel lacks something; the message says what.
            TryAgain: a device is missing, nft refused, or the process is gone.
        """
        await self._connection.ask("set", _to_wire(held))

    async def state(self) -> PacketsState:
        """Read what was last set, and the counters of the lanes.

        Raises:
            TryAgain: the process is gone.
        """
        answer = await self._connection.ask("state")
        counters = {source: Counters(**counted) for source, counted in answer["counters"].items()}
        return PacketsState(_from_wire(answer), counters, answer["unsent"])

    async def list(self) -> str:
        """Read our nft table from the kernel, with its counters.

        Returns:
            JSON as `nft -j` prints it: {"nftables": [...]} with chains, rules, sets and counters.
            The table itself is left out (nft 1.0.6 cannot print an owned one); empty without one.

        Raises:
            TryAgain: the process is gone, or nft failed.
        """
        listed: str = (await self._connection.ask("list"))["json"]
        return listed

    async def quit(self) -> None:
        """End the process and wait until it has let go of everything; already gone is fine.

        Raises:
            TryAgain: it cannot be killed just now.
        """
        try:
            await self._connection.ask("quit")
            ended = await self._ends()
        except TryAgain:
            ended = self.gone.is_set()
        if not ended:
            # It hangs, and holds what must go; the kernel takes that back from the dead.
            send(self.pid, self._started, signal.SIGKILL)
            if not await self._ends():
                raise TryAgain(f"squall-node {self.pid} does not end, not even by SIGKILL")
        self._log.unlink(missing_ok=True)

    async def _ends(self) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.gone.wait()
        return self.gone.is_set()

    def close(self) -> None:
        """Drop the connection; the process lives on for its lease."""
        self._connection.close()


_HOST_LACKS = 3
"""Exit status of squall-node when the host lacks what it needs."""


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + ".log")


def _last_words(log: Path) -> str:
    """Read the last message of a log; each line of it is JSON, but for those of a crash."""
    lines = log.read_text(errors="replace").splitlines()
    last = lines[-1] if lines else ""
    with suppress(ValueError, KeyError, TypeError):
        last = json.loads(last)["message"]
    return last


def _to_wire(held: Held) -> dict[str, Any]:
    return {
        "nft": held.nft,
        "lanes": [
            {
                "device": lane.device,
                "rules": [
                    {
                        "source": rule.source,
                        "peers": None
                        if rule.peers is None
                        else [[peers.cidr, peers.port] for peers in rule.peers],
                        "impairment": asdict(rule.impairment),
                    }
                    for rule in lane.rules
                ],
            }
            for lane in held.lanes
        ],
        "lease": held.lease_seconds,
        "deadline": held.deadline,
    }


def _from_wire(answer: Mapping[str, Any]) -> Held:
    return Held(
        nft=answer["nft"],
        lanes=tuple(
            Lane(lane["device"], tuple(_rule(rule) for rule in lane["rules"]))
            for lane in answer["lanes"]
        ),
        lease_seconds=answer["lease"],
        deadline=answer["deadline"],
    )


def _rule(received: Mapping[str, Any]) -> Rule:
    peers: Sequence[tuple[str, int]] | None = received["peers"]
    known = {field.name for field in fields(Impairment)}
    return Rule(
        received["source"],
        None if peers is None else tuple(Peers(cidr, port) for cidr, port in peers),
        Impairment(**{k: v for k, v in received["impairment"].items() if k in known}),
    )
