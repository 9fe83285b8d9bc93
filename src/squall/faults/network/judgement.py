"""What a probe's numbers say about a network fault. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt

from squall.faults.network.model import NetworkFault
from squall.injection.chance import SIGMAS, wilson
from squall.injection.contract import Judgement, Sample, Verdict
from squall.injection.world.network import Impairment

TOLERANCE = 0.10
"""How far a measured length or speed may be off, as a share of what was asked."""

FLOOR_MS = 0.5
"""A delay may be off by this much in any case: waking a process up takes its time."""

FEWEST = 10
"""Packets below which nothing is said about chance."""


FEWEST_LATE = 3
"""Packets below which one that was held too long says nothing: a busy host wakes nobody in time."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of a fault, as it was asked and found."""

    verdict: Verdict
    asked: str
    measured: str


def judge(fault: NetworkFault, before: Sample | None, during: Sample) -> Judgement:
    """Compare every part; one that is not felt spoils the whole, and silence confirms nothing."""
    values = during.values
    found = list(_cut(fault, before, values) if fault.cuts else _shape(fault, before, values))
    asked = ", ".join(dict.fromkeys(one.asked for one in found)) or fault.action
    if not values.get("in_force"):
        return Judgement(Verdict.MISMATCH, asked, "nothing of it is in force in the target")
    verdicts = {one.verdict for one in found}
    verdict = next(
        (v for v in (Verdict.MISMATCH, Verdict.CONFIRMED) if v in verdicts), Verdict.INCONCLUSIVE
    )
    measured = ", ".join(dict.fromkeys(one.measured for one in found))
    return Judgement(verdict, asked, f"{measured} ({during.way})")


def _cut(
    fault: NetworkFault, before: Sample | None, values: Mapping[str, float]
) -> Iterator[Finding]:
    ways = " and ".join(sorted({cut.way for cut in fault.cuts}, reverse=True))
    asked = f"partition, {ways}"
    dropped, received = values.get("dropped", 0), values.get("pings_received", 0)
    sent, refused = values.get("pings_sent", 0), values.get("pings_refused", 0)
    outward = any(cut.way == "out" for cut in fault.cuts)
    if received or (sent and outward and refused < sent):
        said = f"{sent - refused:g} of {sent:g} pings were sent, {received:g} answered"
        yield Finding(Verdict.MISMATCH, asked, said)
    elif refused or dropped:
        said = f"{dropped:g} packets dropped"
        if sent:
            said += f", {refused:g} of {sent:g} pings refused, none answered"
        yield Finding(Verdict.CONFIRMED, asked, said)
    elif sent and before and before.values.get("pings_received"):
        yield Finding(Verdict.CONFIRMED, asked, f"{sent:g} pings sent, none answered any more")
    else:
        yield Finding(Verdict.INCONCLUSIVE, asked, _silence(values))


def _shape(
    fault: NetworkFault, before: Sample | None, values: Mapping[str, float]
) -> Iterator[Finding]:
    if fault.shape is None:
        return
    impairment = fault.shape.impairment
    if impairment.delay_us:
        yield _delay(impairment, before, values)
    # Pings tell damage from loss no better than a receiver does.
    lost = 1 - (1 - impairment.loss / 100) * (1 - impairment.corrupt / 100)
    chances = (
        ("loss", impairment.loss, impairment.loss_correlation, "dropped", lost),
        ("duplicate", impairment.duplicate, impairment.duplicate_correlation, "duplicated", None),
        ("corrupt", impairment.corrupt, impairment.corrupt_correlation, "corrupted", lost),
        ("reorder", impairment.reorder, impairment.reorder_correlation, "reordered", None),
    )
    for name, percent, correlation, counted, by_ping in chances:
        if percent:
            seen, of, share = _seen(name, counted, values, percent / 100, by_ping)
            exact = not correlation and not (name == "reorder" and impairment.reorder_gap > 1)
            yield _chance(name, share, exact=exact, seen=seen, of=of)
    if speed := impairment.rate or impairment.bandwidth_rate:
        yield _speed(speed, impairment, values)


def _delay(impairment: Impairment, before: Sample | None, values: Mapping[str, float]) -> Finding:
    asked_ms, jitter_ms = impairment.delay_us / 1000, impairment.jitter_us / 1000
    asked = f"delay {asked_ms:g} ms" + (f" ± {jitter_ms:g} ms" if jitter_ms else "")
    # Held packets do not tell of those that should have been held: a ping does that is back early.
    soonest_ms = 0.0 if impairment.reorder else (asked_ms - jitter_ms) * (1 - TOLERANCE) - FLOOR_MS
    early = values.get("rtt_ms", soonest_ms) < soonest_ms
    count = values.get("pings_received", 0)
    if "delay_ms" in values and not early:
        count = values["delayed"]
        measured_ms, said = values["delay_ms"], f"delay {values['delay_ms']:.1f} ms"
        said += f", mean of {count:g} packets"
    elif "rtt_ms" in values:
        plain_ms = before.values.get("rtt_ms", 0.0) if before else 0.0
        measured_ms = values["rtt_ms"] - plain_ms
        said = f"delay {measured_ms:.1f} ms, median of {count:g} pings"
        if values.get("pings_early", 0) > count / 2 and impairment.reorder:
            return Finding(Verdict.INCONCLUSIVE, asked, f"{said}, most of them reordered")
    elif values.get("pings_sent") and not impairment.loss:
        return Finding(Verdict.INCONCLUSIVE, asked, "no ping was answered")
    else:
        return Finding(Verdict.INCONCLUSIVE, asked, _silence(values))
    # The mean of n draws out of ± jitter; a correlation keeps it from getting closer with n.
    draws = 1.0 if impairment.delay_correlation else max(count, 1.0)
    slack_ms = max(asked_ms * TOLERANCE, FLOOR_MS) + SIGMAS * jitter_ms / sqrt(3 * draws)
    queued = impairment.rate or impairment.bandwidth_rate  # waiting for the line adds to it
    late = measured_ms > asked_ms + slack_ms
    # Of what seldom comes, one packet that a busy host held would spoil the mean for good.
    if late and not queued and (count < FEWEST_LATE or values.get("since_begin")):
        return Finding(Verdict.INCONCLUSIVE, asked, f"{said}: too few to tell a busy host apart")
    fits = measured_ms >= asked_ms - slack_ms and (queued or not late)
    return Finding(Verdict.CONFIRMED if fits else Verdict.MISMATCH, asked, said)


def _seen(
    name: str, counted: str, values: Mapping[str, float], share: float, by_ping: float | None
) -> tuple[float, float, float]:
    """How often it happened, out of how many, and the share that was asked of these.

    By the counters of the means, else by pings (a qdisc counts what it drops, and no more).
    """
    sent = values.get("pings_sent", 0) - values.get("pings_refused", 0)
    if counted in values or not sent:
        return values.get(counted, 0), values.get("packets", 0), share
    if name == "duplicate":
        return values.get("pings_duplicated", 0), values.get("pings_received", 0), share
    if name == "reorder":
        return values.get("pings_early", 0), values.get("pings_received", 0), share
    return sent - values.get("pings_received", 0), sent, by_ping or share


def _chance(name: str, share: float, *, exact: bool, seen: float, of: float) -> Finding:
    """Could `seen` of `of` come from draws with this share? By Wilson's score interval."""
    asked = f"{name} {share * 100:g} %"
    if of < FEWEST:
        return Finding(Verdict.INCONCLUSIVE, asked, f"{name}: {of:g} packets are too few to tell")
    low, high = wilson(seen, of)
    said = f"{name} {seen / of * 100:.1f} % of {of:g} packets"
    if exact and not low <= share <= high:
        return Finding(Verdict.MISMATCH, asked, said)
    # None at all fits a small share as well as no fault; then more packets must tell.
    certain = seen > 0
    return Finding(Verdict.CONFIRMED if certain else Verdict.INCONCLUSIVE, asked, said)


def _speed(speed: int, impairment: Impairment, values: Mapping[str, float]) -> Finding:
    """Judge bytes per second: a limit shows only while more is offered than it lets through."""
    name = "rate" if impairment.rate else "bandwidth"
    asked = f"{name} {speed / 1e6:g} MB/s"
    window_s = values.get("window_s", 0.0)
    if not window_s or "bytes" not in values:
        return Finding(Verdict.INCONCLUSIVE, asked, "no bytes are counted here")
    if not values["bytes"]:
        return Finding(Verdict.INCONCLUSIVE, asked, _silence(values))
    burst = 0 if impairment.rate else impairment.bandwidth_buffer
    measured = values["bytes"] / window_s
    said = f"{name} {measured / 1e6:.3g} MB/s"
    if measured > speed * (1 + TOLERANCE) + burst / window_s:
        return Finding(Verdict.MISMATCH, asked, said)
    if measured >= speed * (1 - TOLERANCE):
        return Finding(Verdict.CONFIRMED, asked, said)
    return Finding(Verdict.INCONCLUSIVE, asked, f"{said}, less than the limit lets through")


def _silence(values: Mapping[str, float]) -> str:
    if values.get("pings_sent"):
        return f"{values['pings_sent']:g} pings, none answered"
    return "no traffic, and no single address to ping"
