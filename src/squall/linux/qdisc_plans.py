"""Which chain of qdiscs each combination of shapes needs, and in which band. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isclose

from squall.errors import Unsupported
from squall.injection.world.network import Impairment, Shape
from squall.linux.classes import Match, combinations, matches
from squall.linux.disciplines import Discipline, Netem, TokenBucket
from squall.linux.qdisc_trees import BANDS, DEPTH, Chain, Tree, chains_of

HELD_PACKETS = 100_000
"""That one netem holds back; what comes after is lost unasked. A second of 1 Gbit/s."""

_ALL = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What one device shall have."""

    rules: tuple[Match, ...]
    bands: Mapping[tuple[int, ...], int]
    """Band of each combination of shapes."""
    chains: Mapping[int, Chain]
    """Chain of each band in use."""


def plan_for(shapes: Sequence[Shape], tree: Tree) -> Plan:
    """Give each combination a band, the one that holds its very chain where there is one."""
    rules = matches(shapes)
    wanted = {hit: _chain(shapes, hit) for hit in combinations(rules)}
    if len(wanted) > BANDS or any(len(chain) > DEPTH for chain in wanted.values()):
        raise Unsupported(
            f"these faults overlap in {len(wanted)} ways on one device, and {BANDS} is the most; "
            "give them the same peers, or fewer"
        )
    standing = dict(sorted(chains_of(tree).items()))
    bands: dict[tuple[int, ...], int] = {}
    for hit, chain in wanted.items():
        for band, found in standing.items():
            if same(chain, found) and band not in bands.values():
                bands[hit] = band
                break
    free = [band for band in range(1, BANDS + 1) if band not in bands.values()]
    free.sort(key=standing.__contains__)  # empty ones first: packets wait in the others
    for hit in wanted:
        if hit not in bands:
            bands[hit] = free.pop(0)
    return Plan(tuple(rules), bands, {bands[hit]: chain for hit, chain in wanted.items()})


def _chain(shapes: Sequence[Shape], combination: Sequence[int]) -> Chain:
    return tuple(discipline for _, discipline in stages(shapes, combination))


def stages(shapes: Sequence[Shape], combination: Sequence[int]) -> list[tuple[int, Discipline]]:
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


def same(one: Chain, other: Chain) -> bool:
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


def alike(some: Mapping[int, Chain], others: Mapping[int, Chain]) -> bool:
    """Are the chains of every band the same?"""
    return some.keys() == others.keys() and all(same(some[at], others[at]) for at in some)
