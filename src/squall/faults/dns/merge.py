"""Live faults of one target, put together into what is done to its queries. Pure."""

from collections.abc import Iterable

from squall.faults.dns.model import DNSFault
from squall.injection.contract import Live
from squall.injection.world.names import NameRule


def merge(live: Iterable[Live[DNSFault]]) -> tuple[NameRule, ...]:
    """Put every fault behind the older ones: delays add up, and the oldest that fits answers."""
    return tuple(
        NameRule(
            source=one.source,
            patterns=one.fault.patterns,
            types=one.fault.types,
            answer=one.fault.answer,
            percent=float(one.fault.percent),
            seed=one.fault.seed,
            delay_us=one.fault.delay_us,
            jitter_us=one.fault.jitter_us,
        )
        for one in live
    )
