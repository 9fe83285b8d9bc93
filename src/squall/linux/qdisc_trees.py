"""The qdiscs of ours on one device: a `prio`, and a chain in each of its bands but the first."""

import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence

from squall.linux.disciplines import Discipline
from squall.linux.traffic_control import ROOT, Qdisc

OURS = 0x5C00
"""Major number of our `prio`, and mark of all we add: 0x5cBD stands at depth D of band B."""

BANDS = 15
"""Of the 16 a `prio` has, less the one for what is not shaped."""

DEPTH = 16
"""Qdiscs in one chain."""

Chain = tuple[Discipline, ...]

Tree = Mapping[tuple[int, int], Qdisc]
"""Qdiscs of ours on one device by band and depth; the `prio` is (0, 0)."""


def handle(band: int, depth: int) -> int:
    """Number a qdisc; the `prio` is band 0, depth 0."""
    return (OURS | band << 4 | depth) << 16


def parent(band: int, depth: int) -> int:
    """Say below which class a qdisc stands: of the `prio`, or the only class of the qdisc above."""
    return handle(band, depth - 1) | 1 if depth else handle(0, 0) | (band + 1)


def trees(found: Sequence[Qdisc]) -> dict[str, Tree]:
    """Find the trees of ours by device, in the namespace of the thread that asks."""
    numbers = [q.device for q in found if q.parent == ROOT and q.handle == handle(0, 0)]
    return {socket.if_indextoname(number): tree_of(found, number) for number in numbers}


def tree_of(found: Sequence[Qdisc], number: int) -> Tree:
    """Find the qdiscs of ours on one device; none where its root is not ours."""
    majors = {q.handle >> 16: q for q in found if q.device == number}
    if OURS not in majors or majors[OURS].parent != ROOT:
        return {}
    return {
        (major >> 4 & 0xF, major & 0xF): q for major, q in majors.items() if major & ~0xFF == OURS
    }


def chains_of(tree: Tree) -> dict[int, Chain]:
    """Read the chain of each band that has one."""
    chains: dict[int, list[Discipline]] = defaultdict(list)
    for (band, _), q in sorted(tree.items()):
        if band and q.discipline:
            chains[band].append(q.discipline)
    return {band: tuple(chain) for band, chain in chains.items()}
