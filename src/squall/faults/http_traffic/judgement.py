"""What a probe's numbers say about an HTTP fault. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt

from squall.api.units import duration_text
from squall.faults.http_traffic.merge import ALL
from squall.faults.http_traffic.model import HTTPFault
from squall.injection.contract import Judgement, Sample, Verdict

TOLERANCE = 0.10
"""How far a measured time may be off, as a share of what was asked."""

FLOOR_MS = 1.0
"""A delay may be off by this much in any case: waking a process up takes its time."""

FEWEST_LATE = 3
"""Exchanges below which one that was held too long says nothing: a busy host wakes nobody in
time."""

SIGMAS = 3.3
"""A count left to chance is off by more than this many deviations once in a thousand looks."""

FEWEST = 10
"""Exchanges below which nothing is said about chance."""

_NEVER_ANSWERED = "was answered as if nothing had happened"


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of a fault, as it was asked and found."""

    verdict: Verdict
    asked: str
    measured: str


def judge(fault: HTTPFault, before: Sample | None, during: Sample) -> Judgement:
    """Compare every part; one that is not felt spoils the whole, and silence confirms nothing."""
    values = during.values
    asked = f"{', '.join(_asked(fault))} on port {fault.port}"
    if not values.get("in_force"):
        return Judgement(Verdict.MISMATCH, asked, "nothing of it is in force in the target")
    if not values.get("matched"):
        verdict, measured = _unmatched(fault, values)
        return Judgement(verdict, asked, f"{measured} ({during.way})")
    found = list(_findings(fault, before, values))
    verdicts = {one.verdict for one in found}
    verdict = next(
        (v for v in (Verdict.MISMATCH, Verdict.CONFIRMED) if v in verdicts), Verdict.INCONCLUSIVE
    )
    measured = ", ".join(dict.fromkeys(one.measured for one in found))
    return Judgement(verdict, asked, f"{measured}{_unopened(values)} ({during.way})")


def _asked(fault: HTTPFault) -> Iterator[str]:
    if fault.percent is not None and fault.percent < ALL:
        yield f"{fault.percent:g} % of {fault.target.lower()}s"
    else:
        yield f"{fault.target.lower()}s"
    if fault.abort:
        yield "abort"
    if fault.delay:
        yield f"delay {duration_text(fault.delay)}"
    if fault.replaces:
        yield "replace"
    if fault.patches:
        yield "patch"
    if fault.ends_calls:
        yield "end of gRPC calls"


def _unmatched(fault: HTTPFault, values: Mapping[str, float]) -> tuple[Verdict, str]:
    """Say why nothing was hit: nothing came, it was something else, or it could not be opened."""
    exchanges = values.get("exchanges", 0)
    certain = fault.percent is None or fault.percent >= ALL
    if values.get("request_fits") and values.get("request_status") and certain:
        return Verdict.MISMATCH, f"a request of ours {_NEVER_ANSWERED}"
    if values.get("sealed"):
        return Verdict.INCONCLUSIVE, f"no request could be read{_unopened(values)}"
    if exchanges:
        return Verdict.INCONCLUSIVE, f"none of {exchanges:g} exchanges was one that is meant"
    if values.get("foreign"):
        return Verdict.INCONCLUSIVE, f"{values['foreign']:g} connections, none of which spoke HTTP"
    return Verdict.INCONCLUSIVE, "no request came"


def _unopened(values: Mapping[str, float]) -> str:
    sealed = values.get("sealed", 0)
    if not sealed:
        return ""
    return (
        f"; {sealed:g} TLS connections could not be opened: the client trusts only what it pins, "
        "or no certificate was given for its name; of these, whole connections are hit, or none"
    )


def _findings(
    fault: HTTPFault, before: Sample | None, values: Mapping[str, float]
) -> Iterator[Finding]:
    matched = values["matched"]
    if fault.percent is not None and fault.percent < ALL and every_one_is_meant(fault):
        yield _chance(fault.percent / 100, matched, values.get("exchanges", 0))
    if fault.abort:
        # What is broken off has no delay, and nothing of it is changed.
        yield _counted("aborted", values.get("aborted", 0), matched)
        return
    if fault.delay_us:
        yield _delay(fault, before, values)
    if fault.replaces:
        yield _counted("replaced", values.get("replaced", 0), matched)
    if fault.patches:
        unpatchable = values.get("unpatchable", 0)
        patched = values.get("patched", 0)
        yield _counted("patched", patched, matched)
        if unpatchable:
            said = f"{unpatchable:g} bodies are no JSON, are encoded or too long"
            yield Finding(Verdict.MISMATCH, "patch", said)
        if crowded := values.get("crowded", 0):
            said = f"{crowded:g} bodies passed unchanged: too much of others was held at once"
            yield Finding(Verdict.MISMATCH, "patch", said)
    if fault.ends_calls:
        ended = values.get("ended", 0)
        verdict = Verdict.CONFIRMED if ended else Verdict.INCONCLUSIVE
        yield Finding(verdict, "gRPC", f"{ended:g} gRPC calls given another end")


def _counted(name: str, seen: float, of: float) -> Finding:
    said = f"{seen:g} of {of:g} {name}"
    return Finding(Verdict.CONFIRMED if seen >= of else Verdict.MISMATCH, name, said)


def _delay(fault: HTTPFault, before: Sample | None, values: Mapping[str, float]) -> Finding:
    asked_ms = fault.delay_us / 1000
    slack_ms = max(asked_ms * TOLERANCE, FLOOR_MS)
    count = values.get("delayed", 0)
    if not count:
        return Finding(Verdict.MISMATCH, "delay", "nothing was held")
    held_ms = values.get("delay_ms", 0.0)
    said = f"delay {held_ms:.1f} ms, mean of {count:g}"
    if values.get("request_status"):
        # What a client feels is worth more than what a proxy says of itself; that it waited for
        # longer is the server's doing.
        felt_ms = values.get("request_ms", 0.0)
        plain_ms = before.values.get("request_ms") if before else None
        said = f"{said}; a request of ours took {felt_ms:.1f} ms"
        said += f", {plain_ms:.1f} ms before" if plain_ms else ""
        if felt_ms < asked_ms - slack_ms:
            return Finding(Verdict.MISMATCH, "delay", said)
    if held_ms > asked_ms + slack_ms and count < FEWEST_LATE:
        return Finding(Verdict.INCONCLUSIVE, "delay", f"{said}: too few to tell a busy host apart")
    fits = abs(held_ms - asked_ms) <= slack_ms
    return Finding(Verdict.CONFIRMED if fits else Verdict.MISMATCH, "delay", said)


def every_one_is_meant(fault: HTTPFault) -> bool:
    """Does nothing but chance keep an exchange on the port from being hit?"""
    filters = (fault.path not in {None, "", "*"}, fault.method, fault.request_headers)
    ends = (fault.code, fault.response_headers) if fault.target == "Response" else ()
    return not any((*filters, *ends))


def _chance(share: float, seen: float, of: float) -> Finding:
    """Could `seen` of `of` come from draws with this share? By Wilson's score interval."""
    said = f"{seen:g} of {of:g} exchanges hit"
    if of < FEWEST:
        return Finding(Verdict.INCONCLUSIVE, "percent", f"{said}: too few to tell")
    z = SIGMAS * SIGMAS
    middle = (seen + z / 2) / (of + z)
    half = SIGMAS / (of + z) * sqrt(max(0.0, seen * (of - seen) / of) + z / 4)
    fits = middle - half <= share <= middle + half
    return Finding(Verdict.CONFIRMED if fits else Verdict.MISMATCH, "percent", said)
