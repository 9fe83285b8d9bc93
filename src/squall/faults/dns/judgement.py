"""What a probe's numbers say about a fault in names. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from math import sqrt

from squall.faults.dns.model import DNSFault
from squall.injection.chance import SIGMAS, wilson
from squall.injection.contract import Judgement, Sample, Verdict
from squall.injection.world.names import TYPES, Reply

TOLERANCE = 0.10
"""How far a measured delay may be off, as a share of what was asked."""

FLOOR_MS = 0.5
"""A delay may be off by this much in any case: waking a process up takes its time."""

BUSY_MS = 5.0
"""A mean may be too late by this much more: one look-up that waits for a busy host moves it."""

FEWEST = 10
"""Look-ups below which nothing is said about chance."""

FEWEST_LATE = 3
"""Look-ups below which one that was held too long says nothing: a busy host wakes nobody in time.
"""

NOBODYS = (ip_network("198.18.0.0/15"), ip_network("2001:db8::/32"))
"""Where random addresses are from."""

_CODES = {0: "NODATA", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
_TYPE_NAMES = {number: name for name, number in TYPES.items()}


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of a fault, as it was asked and found."""

    verdict: Verdict
    asked: str
    measured: str


def as_asked(fault: DNSFault, reply: Reply) -> bool:
    """Is a reply what the fault calls for? Of one that only holds queries, any reply is."""
    answer = fault.answer
    if answer.kind == "relayed":
        return reply.code is not None
    if answer.kind == "nothing":
        return reply.code is None
    if answer.kind == "truncated":
        return reply.truncated
    if answer.kind == "code":
        return reply.code == answer.code and not reply.addresses
    if answer.addresses:
        return reply.code == 0 and set(reply.addresses) <= set(answer.addresses)
    return bool(reply.addresses) and all(_is_nobodys(address) for address in reply.addresses)


def _is_nobodys(address: str) -> bool:
    return any(ip_address(address) in network for network in NOBODYS)


def judge(fault: DNSFault, during: Sample) -> Judgement:
    """Compare every part; one that is not felt spoils the whole, and silence confirms nothing."""
    values = during.values
    found = [_answers(fault, values)]
    if fault.delay_us:
        found.append(_delay(fault, values))
    asked = f"{', '.join(one.asked for one in found)}, for {_whom(fault)}"
    if not values.get("in_force"):
        return Judgement(Verdict.MISMATCH, asked, "nothing of it is in force in the target")
    verdicts = {one.verdict for one in found}
    order = (Verdict.MISMATCH, Verdict.INCONCLUSIVE, Verdict.CONFIRMED)
    verdict = next(one for one in order if one in verdicts)
    measured = ", ".join(dict.fromkeys(one.measured for one in found))
    return Judgement(verdict, asked, f"{measured} ({during.way})")


def _answers(fault: DNSFault, values: Mapping[str, float]) -> Finding:
    """Were queries caught, as many as should be, and were replies as asked?"""
    asked = _effect(fault)
    matched, hit, sent = (values.get(name, 0.0) for name in ("matched", "hit", "asked"))
    certain = fault.percent == 100  # noqa: PLR2004  (percent)
    if not matched:
        if not sent:
            return Finding(Verdict.INCONCLUSIVE, asked, "no look-ups of such names")
        if values.get("by_others", 0.0) >= sent:
            why = "an older experiment answers these names"
            return Finding(Verdict.INCONCLUSIVE, asked, why)
        return Finding(Verdict.MISMATCH, asked, f"{sent:g} look-ups made, none was caught")
    said = f"{hit:g} of {matched:g} look-ups hit"
    if sent:
        said += f", {values.get('felt', 0.0):g} of {sent:g} replies as asked"
    if not certain:
        return Finding(_chance(fault.percent / 100, hit, matched), asked, said)
    # Of a fault that only holds queries, whether their server answers is not its business.
    wrong = sent and values.get("felt", 0.0) < sent and fault.answer.kind != "relayed"
    if hit < matched or (wrong and not values.get("by_others")):
        return Finding(Verdict.MISMATCH, asked, said)
    return Finding(Verdict.CONFIRMED, asked, said)


def _chance(share: float, hit: float, matched: float) -> Verdict:
    """Could `hit` of `matched` come from draws with this share?"""
    if matched < FEWEST:
        return Verdict.INCONCLUSIVE
    low, high = wilson(hit, matched)
    if not low <= share <= high:
        return Verdict.MISMATCH
    # None at all fits a small share as well as no fault; then more look-ups must tell.
    return Verdict.CONFIRMED if hit else Verdict.INCONCLUSIVE


def _delay(fault: DNSFault, values: Mapping[str, float]) -> Finding:
    asked_ms, jitter_ms = fault.delay_us / 1000, fault.jitter_us / 1000
    asked = f"{asked_ms:g} ms late" + (f" ± {jitter_ms:g} ms" if jitter_ms else "")
    count = values.get("delayed", 0.0)
    if not count:
        return Finding(Verdict.INCONCLUSIVE, asked, "none was held to its end")
    measured_ms = values["delay_ms"]
    said = f"{measured_ms:.1f} ms late, mean of {count:g}"
    slack_ms = max(asked_ms * TOLERANCE, FLOOR_MS) + SIGMAS * jitter_ms / sqrt(3 * count)
    latest_ms = asked_ms + slack_ms + BUSY_MS
    if measured_ms > latest_ms and count < FEWEST_LATE:
        return Finding(Verdict.INCONCLUSIVE, asked, f"{said}: too few to tell a busy host apart")
    fits = asked_ms - slack_ms <= measured_ms <= latest_ms
    return Finding(Verdict.CONFIRMED if fits else Verdict.MISMATCH, asked, said)


def _effect(fault: DNSFault) -> str:
    answer = fault.answer
    effects = {
        "relayed": "right answers",
        "nothing": "no answers",
        "truncated": "truncated answers",
        "code": _CODES.get(answer.code, f"code {answer.code}"),
        "addresses": f"{', '.join(answer.addresses) or 'random addresses'}",
    }
    share = "" if fault.percent == 100 else f" for {fault.percent} %"  # noqa: PLR2004  (percent)
    return effects[answer.kind] + share


def _whom(fault: DNSFault) -> str:
    names = ", ".join(fault.patterns) or "every name"
    if not fault.types:
        return names
    types = (_TYPE_NAMES.get(number, f"TYPE{number}") for number in fault.types)
    return f"{names} ({', '.join(types)})"
