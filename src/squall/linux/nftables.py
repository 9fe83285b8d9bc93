"""Our nftables table: written as a script, read back from what the kernel lists. Pure.

One table in each namespace, `inet squall_network`, owned by the process that holds it. What a rule
says is the whole truth: its comment names the live fault, its matches are the peers, so that a cut
is read back from the kernel and from nothing else.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Network,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
    summarize_address_range,
)
from typing import Any, Literal

from squall.injection.world.network import Counters, Cut, Peers, canonical

TABLE = "squall_network"
"""Our mark."""

_CHAINS: Mapping[Literal["in", "out"], str] = {"out": "output", "in": "input"}
"""Hook, and name of our chain at it, by the way of a cut."""

_PORTED = "meta l4proto { tcp, udp, sctp } th"

_SPARED = (
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert }"
    " accept"
)
"""Neighbour discovery passes, as ARP does, which no rule here sees: hosts stay found."""

_Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Classified:
    """Packets that leave `device` towards `networks` get `priority`, which a qdisc reads."""

    device: str
    networks: tuple[str, ...] | None
    """Of one family; None is every packet."""
    port: int
    """Destination port; 0 is any."""
    priority: str
    """`major:minor` of a class, in hexadecimal."""


def _families(cidrs: Iterable[str]) -> tuple[list[_Network], list[_Network]]:
    """Split networks into IPv4 and IPv6, overlapping ones joined."""
    networks = [ip_network(cidr) for cidr in cidrs]
    return (
        list(collapse_addresses(n for n in networks if isinstance(n, IPv4Network))),
        list(collapse_addresses(n for n in networks if isinstance(n, IPv6Network))),
    )


def script(cuts: Sequence[Cut], classified: Sequence[Classified] = (), *, note: str = "") -> str:
    """Write the transaction that replaces our table, whether it is there or not.

    Args:
        cuts: what is dropped.
        classified: what is given a class.
        note: one line for who reads the script; the kernel does not see it.

    Returns:
        Empty where nothing is asked.
    """
    if not cuts and not classified:
        return ""
    chains = [
        _chain(hook, f"hook {hook} priority filter", lines)
        for way, hook in _CHAINS.items()
        if (lines := [line for cut in cuts if cut.way == way for line in _cut_rules(cut)])
    ]
    if classified:
        # After every other chain: whoever else sets a priority for his own qdisc keeps it on
        # packets that we do not impair.
        lines = [_class_rule(rule) for rule in classified]
        chains.append(_chain("postrouting", "hook postrouting priority 300", lines))
    body = "\n".join(chains)
    owned = f"table inet {TABLE} {{\n\tflags owner\n"
    head = f"# {note}\n" if note else ""
    return f"{head}{owned}}}\ndelete table inet {TABLE}\n{owned}{body}\n}}\n"


def cuts(listed: str) -> tuple[Cut, ...]:
    """Read the cuts that are in force from `nft -j list table`.

    Rules that look unlike ours are passed over: what they were meant for is then missing.
    """
    asked: dict[tuple[str, Literal["in", "out"], str], list[Peers] | None] = {}
    for chain, rule in _rules(listed):
        way: Literal["in", "out"] | None = {"output": "out", "input": "in"}.get(chain)  # type: ignore[assignment]
        if way is None or not any("drop" in part for part in rule["expr"]):
            continue
        device, peers = _matches(rule["expr"], way)
        key = rule.get("comment", ""), way, device
        if peers is None:
            asked[key] = None
        elif (others := asked.setdefault(key, [])) is not None:
            others.extend(peers)
    return tuple(
        Cut(source, way, None if peers is None else canonical(peers), device)
        for (source, way, device), peers in asked.items()
    )


def cut_counters(listed: str) -> Mapping[str, Counters]:
    """Add up what each source's cuts dropped."""
    dropped: dict[str, int] = defaultdict(int)
    for chain, rule in _rules(listed):
        if chain in _CHAINS.values():
            for part in rule["expr"]:
                if "counter" in part:
                    dropped[rule.get("comment", "")] += part["counter"]["packets"]
    return {source: Counters(packets=n, dropped=n) for source, n in dropped.items()}


def classified(listed: str) -> int:
    """Count the rules that give packets a class."""
    return sum(
        chain == "postrouting" and any("mangle" in part for part in rule["expr"])
        for chain, rule in _rules(listed)
    )


def _chain(name: str, hook: str, rules: Sequence[str]) -> str:
    head = f"\tchain {name} {{\n\t\ttype filter {hook}; policy accept;\n"
    return head + "".join(f"\t\t{rule}\n" for rule in (_SPARED, *rules)) + "\t}"


def _cut_rules(cut: Cut) -> Iterator[str]:
    """One rule for each family and port; the peer's port is where it listens, either way."""
    name, address, port = (
        ("oifname", "daddr", "dport") if cut.way == "out" else ("iifname", "saddr", "sport")
    )
    device = f'{name} "{cut.device}"' if cut.device else f'{name} != "lo"'
    end = f'counter drop comment "{cut.source}"'
    if cut.peers is None:
        yield f"{device} {end}"
        return
    by_port: dict[int, list[str]] = defaultdict(list)
    for peer in cut.peers:
        by_port[peer.port].append(peer.cidr)
    for number, cidrs in sorted(by_port.items()):
        to_port = f"{_PORTED} {port} {number} " if number else ""
        for networks in filter(None, _families(cidrs)):
            yield f"{device} {_addresses(address, networks)} {to_port}{end}"


def _class_rule(rule: Classified) -> str:
    parts = [f'oifname "{rule.device}"']
    if rule.networks is not None:
        parts.append(_addresses("daddr", [ip_network(cidr) for cidr in rule.networks]))
    if rule.port:
        parts.append(f"{_PORTED} dport {rule.port}")
    return " ".join((*parts, f"meta priority set {rule.priority} accept"))


def _addresses(field: str, networks: Sequence[_Network]) -> str:
    family = "ip" if networks[0].version == 4 else "ip6"  # noqa: PLR2004  (the protocol's number)
    if any(network.prefixlen == 0 for network in networks):
        return f"meta nfproto {'ipv4' if family == 'ip' else 'ipv6'}"  # sets refuse /0
    return f"{family} {field} {{ {', '.join(map(str, networks))} }}"


def _rules(listed: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every rule of our table with the name of its chain."""
    if listed:
        for entry in json.loads(listed)["nftables"]:
            if rule := entry.get("rule"):
                yield rule["chain"], rule


def _matches(
    parts: Sequence[Mapping[str, Any]], way: Literal["in", "out"]
) -> tuple[str, list[Peers] | None]:
    """Device and peers that a rule matches; None where it asks for no address."""
    device, port, networks = "", 0, None
    ours = {"out": ("oifname", "daddr", "dport"), "in": ("iifname", "saddr", "sport")}[way]
    for part in parts:
        if not (match := part.get("match")):
            continue
        left, right = match["left"], match["right"]
        field = left.get("meta", {}).get("key") or left.get("payload", {}).get("field")
        if field == ours[0] and match["op"] == "==":
            device = right
        elif field == "nfproto":
            networks = ["0.0.0.0/0" if right == "ipv4" else "::/0"]
        elif field == ours[1]:
            networks = list(_cidrs(right))
        elif field == ours[2]:
            port = right
    return device, None if networks is None else [Peers(cidr, port) for cidr in networks]


def _cidrs(right: Any) -> Iterator[str]:  # noqa: ANN401  (nft's JSON)
    """Networks of an address, a prefix, a range or a set of these, as nft writes them."""
    if isinstance(right, str):
        yield str(ip_network(right))
    elif prefix := right.get("prefix"):
        yield f"{prefix['addr']}/{prefix['len']}"
    elif ends := right.get("range"):
        first, last = (ip_address(end) for end in ends)
        yield from map(str, summarize_address_range(first, last))
    else:
        for element in right.get("set", ()):
            yield from _cidrs(element)
