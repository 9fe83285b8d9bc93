"""Client of `squall-node packets`, a process that holds packet faults in one network namespace.

Whatever ends it, SIGKILL included, the kernel takes back all that it held.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from squall.injection.world.network import Counters, Impairment, Peers
from squall.linux.namespace_holders import NamespaceHolder


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


class PacketsProcess(NamespaceHolder):
    """One running `squall-node packets`."""

    module = "packets"

    async def set(self, held: Held) -> None:
        """Make exactly `held` be in force; on an error nothing has changed.

        The same again changes nothing, and packets waiting in an unchanged lane go on waiting.

        Raises:
            InvalidFault: a rule that makes no sense, with its reason.
            Unsupported: the kernel lacks something; the message says what.
            TryAgain: a device is missing, nft refused, or the process is gone.
        """
        await self.ask("set", _to_wire(held))

    async def state(self) -> PacketsState:
        """Read what was last set, and the counters of the lanes.

        Raises:
            TryAgain: the process is gone.
        """
        answer = await self.ask("state")
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
        listed: str = (await self.ask("list"))["json"]
        return listed


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
