"""Shapes by way of the kernel's own qdiscs, where it has `sch_netem`.

On each device stands a `prio` of ours. Its first band is for all that is not shaped; each other
one holds a chain of netem and token buckets, for one combination of shapes. Which band a packet
takes is written on it by our nftables table; once that is gone, by whatever cause, every packet
takes the first band: the qdiscs fail open.
"""

import json
import socket
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isclose
from typing import Final

from squall.errors import TryAgain, Unsupported
from squall.injection.world.network import Counters, Impairment, Peers, Shape
from squall.injection.world.target import Target
from squall.linux import namespaces, nftables
from squall.linux.classes import Match, combinations, matches
from squall.linux.namespaces import Namespace, inside
from squall.linux.nftables import Classified
from squall.linux.packets import Held, PacketsState
from squall.linux.shaping import Prepared
from squall.linux.traffic_control import (
    ROOT,
    Discipline,
    Netem,
    Priorities,
    Qdisc,
    TokenBucket,
    TrafficControl,
)

OURS = 0x5C00
"""Major number of our `prio`, and mark of all we add: 0x5cBD stands at depth D of band B."""

BANDS = 15
"""Of the 16 a `prio` has, less the one for what is not shaped."""

DEPTH = 16
"""Qdiscs in one chain."""

HELD_PACKETS = 100_000
"""That one netem holds back; what comes after is lost unasked. A second of 1 Gbit/s."""

_ALL = 2**32 - 1
_NOTE = "shapes "

Chain = tuple[Discipline, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one device shall have."""

    rules: tuple[Match, ...]
    bands: Mapping[tuple[int, ...], int]
    """Band of each combination of shapes."""
    chains: Mapping[int, Chain]
    """Chain of each band in use."""


class Qdiscs:
    """One tree for each device; changed where it differs, so that the rest keeps its packets."""

    name: Final = "netem"
    """As `squall doctor` calls this path."""

    async def prepare(
        self, target: Target, namespace: Namespace, shapes: Sequence[Shape]
    ) -> Prepared:
        """Let every chain stand that `shapes` need; others stay until `tidy`.

        Raises:
            Unsupported: a device has a root qdisc of somebody else, or there are too many
                combinations of shapes on one.
            TryAgain: a device is missing.
        """
        if not shapes:
            return Prepared()
        by_device = _by_device(target, shapes)

        def build() -> list[Classified]:
            with TrafficControl() as control:
                found = control.qdiscs()
                plans: dict[str, _Plan] = {}
                for device, of_device in by_device.items():
                    number = _number(device, target)
                    _refuse_foreign(found, number, device, target)
                    plans[device] = _plan(of_device, _tree(found, number))
                for device, plan in plans.items():
                    number = _number(device, target)
                    _build(control, number, _tree(found, number), plan)
            return [rule for device, plan in plans.items() for rule in _classified(device, plan)]

        classified = await inside(namespace, build)
        return Prepared(classified=tuple(classified), note=_NOTE + _write(shapes))

    async def shapes(
        self, target: Target, namespace: Namespace, held: Held, listed: str
    ) -> Sequence[Shape]:
        """Read the shapes that were asked for, as far as the kernel bears them out.

        What is left of a tree that nobody holds any more is told as a shape without a source.
        """
        asked = _by_device(target, _read(held.nft))
        rules = sum(len(matches(shapes)) for shapes in asked.values())
        if nftables.classified(listed) != rules:
            asked = {}
        found: list[Shape] = []
        for device, tree in (await inside(namespace, _our_trees)).items():
            shapes = asked.get(device, ())
            plan = _plan(shapes, tree)
            if shapes and _alike(plan.chains, _chains(tree)):
                found += shapes
            else:
                found.append(Shape("", None, Impairment(), device))
        return found

    async def tidy(self, target: Target, namespace: Namespace, shapes: Sequence[Shape]) -> None:
        """Remove the chains that no packet takes any more, and trees without any."""
        by_device = _by_device(target, shapes)

        def remove() -> None:
            with TrafficControl() as control:
                found = control.qdiscs()
                for device, tree in _trees(found).items():
                    of_device = by_device.get(device, ())
                    _trim(control, socket.if_nametoindex(device), tree, _plan(of_device, tree))

        await inside(namespace, remove)

    async def counters(
        self, target: Target, namespace: Namespace, state: PacketsState
    ) -> Mapping[str, Counters]:
        """Add up what the qdiscs of each source did; they tell packets, bytes and drops."""
        by_device = _by_device(target, _read(state.held.nft))
        found: dict[str, Counters] = {}
        for device, tree in (await inside(namespace, _our_trees)).items():
            shapes = by_device.get(device, ())
            plan = _plan(shapes, tree)
            for combination, band in plan.bands.items():
                for source, counted in _counted(shapes, combination, band, tree):
                    found[source] = found[source] + counted if source in found else counted
        return found


_Tree = Mapping[tuple[int, int], Qdisc]
"""Qdiscs of ours on one device by band and depth; the `prio` is (0, 0)."""


def _plan(shapes: Sequence[Shape], tree: _Tree) -> _Plan:
    """Give each combination a band, the one that holds its very chain where there is one."""
    rules = matches(shapes)
    wanted = {hit: _chain(shapes, hit) for hit in combinations(rules)}
    if len(wanted) > BANDS or any(len(chain) > DEPTH for chain in wanted.values()):
        raise Unsupported(
            f"these faults overlap in {len(wanted)} ways on one device, and {BANDS} is the most; "
            "give them the same peers, or fewer"
        )
    standing = dict(sorted(_chains(tree).items()))
    bands: dict[tuple[int, ...], int] = {}
    for hit, chain in wanted.items():
        for band, found in standing.items():
            if _same(chain, found) and band not in bands.values():
                bands[hit] = band
                break
    free = [band for band in range(1, BANDS + 1) if band not in bands.values()]
    free.sort(key=standing.__contains__)  # empty ones first: packets wait in the others
    for hit in wanted:
        if hit not in bands:
            bands[hit] = free.pop(0)
    return _Plan(tuple(rules), bands, {bands[hit]: chain for hit, chain in wanted.items()})


def _chain(shapes: Sequence[Shape], combination: Sequence[int]) -> Chain:
    return tuple(discipline for _, discipline in _stages(shapes, combination))


def _stages(shapes: Sequence[Shape], combination: Sequence[int]) -> list[tuple[int, Discipline]]:
    """Qdiscs that the packets of a combination pass, each with its shape.

    Token buckets come last: a bucket's limit counts only what waits in the bucket itself.
    """
    stages = [(at, netem) for at in combination if (netem := _netem(shapes[at].impairment))]
    buckets = [(at, bucket) for at in combination if (bucket := _bucket(shapes[at].impairment))]
    return [*stages, *buckets]


def _netem(asked: Impairment) -> Netem | None:
    """The qdisc of everything but the token bucket, if there is anything."""
    if not any(value for name, value in asdict(asked).items() if not name.startswith("bandwidth")):
        return None
    return Netem(
        delay_ns=asked.delay_us * 1000,
        jitter_ns=asked.jitter_us * 1000,
        limit=HELD_PACKETS,
        loss=_share(asked.loss),
        duplicate=_share(asked.duplicate),
        gap=max(asked.reorder_gap, 1) if asked.reorder else 0,
        correlations=(
            _share(asked.delay_correlation),
            _share(asked.loss_correlation),
            _share(asked.duplicate_correlation),
        ),
        reorder=(_share(asked.reorder), _share(asked.reorder_correlation)),
        corrupt=(_share(asked.corrupt), _share(asked.corrupt_correlation)),
        rate=asked.rate,
    )


def _bucket(asked: Impairment) -> TokenBucket | None:
    if not asked.bandwidth_rate:
        return None
    peak, mtu = asked.bandwidth_peakrate, asked.bandwidth_minburst
    return TokenBucket(
        rate=asked.bandwidth_rate,
        burst_ns=asked.bandwidth_buffer * 10**9 // asked.bandwidth_rate,
        limit=asked.bandwidth_limit,
        peak_rate=peak if mtu else 0,
        peak_burst_ns=mtu * 10**9 // peak if peak else 0,
    )


def _share(percent: float) -> int:
    return round(percent / 100 * _ALL)


def _same(one: Chain, other: Chain) -> bool:
    """Equal, but for what the kernel rounds: it keeps bursts in ticks."""
    return len(one) == len(other) and all(map(_same_discipline, one, other))


def _same_discipline(one: Discipline, other: Discipline) -> bool:
    if isinstance(one, TokenBucket) and isinstance(other, TokenBucket):
        close = all(
            isclose(a, b, rel_tol=1e-6, abs_tol=200)
            for a, b in (
                (one.burst_ns, other.burst_ns),
                (one.peak_burst_ns, other.peak_burst_ns),
            )
        )
        bare = replace(one, burst_ns=0, peak_burst_ns=0)
        return close and bare == replace(other, burst_ns=0, peak_burst_ns=0)
    return one == other


def _alike(some: Mapping[int, Chain], others: Mapping[int, Chain]) -> bool:
    return some.keys() == others.keys() and all(_same(some[at], others[at]) for at in some)


def _build(control: TrafficControl, number: int, tree: _Tree, plan: _Plan) -> None:
    """Make the chains of a plan stand; others are left."""
    if (0, 0) not in tree:
        control.put(number, _handle(0, 0), ROOT, Priorities())
    if any(isinstance(d, Netem) and d.duplicate for chain in plan.chains.values() for d in chain):
        _trim(control, number, tree, plan)  # a netem that duplicates stands no other beside it
    chains = _chains(tree)
    for band, chain in plan.chains.items():
        found = chains.get(band, ())
        if _same(chain, found):
            continue
        if found and [d.kind for d in found] != [d.kind for d in chain]:
            control.delete(number, _handle(band, 0), _parent(band, 0))
        for depth, discipline in enumerate(chain):
            control.put(number, _handle(band, depth), _parent(band, depth), discipline)


def _trim(control: TrafficControl, number: int, tree: _Tree, plan: _Plan) -> None:
    """Remove the chains that a plan has no use for; all that is ours where it has none."""
    if not plan.chains:
        control.delete(number, _handle(0, 0), ROOT)
        return
    for band in _chains(tree).keys() - plan.chains.keys():
        control.delete(number, _handle(band, 0), _parent(band, 0))


def _handle(band: int, depth: int) -> int:
    return (OURS | band << 4 | depth) << 16


def _parent(band: int, depth: int) -> int:
    """The class of the `prio`, or the only class of the qdisc above."""
    return _handle(band, depth - 1) | 1 if depth else _handle(0, 0) | (band + 1)


def _classified(device: str, plan: _Plan) -> list[Classified]:
    return [
        Classified(device, rule.networks, rule.port, f"{OURS:x}:{plan.bands[rule.shapes] + 1:x}")
        for rule in plan.rules
    ]


def _our_trees() -> dict[str, _Tree]:
    """Find the trees of ours by device. Runs inside the namespace."""
    with TrafficControl() as control:
        return _trees(control.qdiscs())


def _trees(found: Sequence[Qdisc]) -> dict[str, _Tree]:
    numbers = [q.device for q in found if q.parent == ROOT and q.handle == _handle(0, 0)]
    return {socket.if_indextoname(number): _tree(found, number) for number in numbers}


def _tree(found: Sequence[Qdisc], number: int) -> _Tree:
    """Qdiscs of ours on one device; none where its root is not ours."""
    majors = {q.handle >> 16: q for q in found if q.device == number}
    if OURS not in majors or majors[OURS].parent != ROOT:
        return {}
    return {
        (major >> 4 & 0xF, major & 0xF): q for major, q in majors.items() if major & ~0xFF == OURS
    }


def _chains(tree: _Tree) -> dict[int, Chain]:
    chains: dict[int, list[Discipline]] = defaultdict(list)
    for (band, _), q in sorted(tree.items()):
        if band and q.discipline:
            chains[band].append(q.discipline)
    return {band: tuple(chain) for band, chain in chains.items()}


def _counted(
    shapes: Sequence[Shape], combination: Sequence[int], band: int, tree: _Tree
) -> Iterator[tuple[str, Counters]]:
    """What each source's qdiscs in one chain counted; a qdisc counts drops below it as well."""
    first: set[int] = set()
    for depth, (at, _) in enumerate(_stages(shapes, combination)):
        if not (q := tree.get((band, depth))):
            continue
        below = tree.get((band, depth + 1))
        dropped = max(0, q.dropped - (below.dropped if below else 0))
        packets = 0 if at in first else q.packets + q.dropped
        # Bytes of the bucket, where a shape has both: it is the bucket that limits them.
        size = 0 if at in first or len(_stages(shapes, (at,))) > 1 else q.bytes
        size = q.bytes if at in first else size
        first.add(at)
        yield (
            shapes[at].source,
            Counters(packets, None, dropped, None, None, None, None, size),
        )


def _by_device(target: Target, shapes: Sequence[Shape]) -> dict[str, list[Shape]]:
    found: dict[str, list[Shape]] = defaultdict(list)
    for shape in shapes:
        found[shape.device or namespaces.default_device(target)].append(shape)
    return dict(found)


def _number(device: str, target: Target) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError as missing:
        raise TryAgain(f"{target.id} has no device {device}; name one in spec.device") from missing


def _refuse_foreign(found: Sequence[Qdisc], number: int, device: str, target: Target) -> None:
    for q in found:
        if q.device == number and q.parent == ROOT and q.handle not in {0, _handle(0, 0)}:
            raise Unsupported(
                f"{target.id}: {device} already has a root {q.kind}, which is not ours to touch; "
                "remove it, or name another device in spec.device"
            )


def _write(shapes: Sequence[Shape]) -> str:
    return json.dumps([asdict(shape) for shape in shapes])


def _read(script: str) -> tuple[Shape, ...]:
    """Read the shapes that the script of a table was written for."""
    note = script.partition("\n")[0].removeprefix("# ")
    if not note.startswith(_NOTE):
        return ()
    return tuple(
        Shape(
            one["source"],
            None if one["peers"] is None else tuple(Peers(**peer) for peer in one["peers"]),
            Impairment(**one["impairment"]),
            one["device"],
        )
        for one in json.loads(note.removeprefix(_NOTE))
    )
