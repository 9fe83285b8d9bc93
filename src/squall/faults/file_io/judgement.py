"""What a probe's numbers say about a file fault. Pure."""

import errno
from collections.abc import Mapping
from dataclasses import fields

from squall.faults.file_io.methods import FELT
from squall.faults.file_io.model import FileFault
from squall.injection.chance import wilson
from squall.injection.contract import Judgement, Sample, Verdict
from squall.injection.world.files import Attributes

TOLERANCE = 0.10
"""How far a measured delay may be off, as a share of what was asked."""

FLOOR_MS = 0.5
"""It may be off by this much in any case: waking a process up takes its time."""

FEWEST_LATE = 3
"""Requests below which one that was held too long says nothing: a busy host wakes people late."""

FEWEST = 10
"""Requests below which nothing is said about chance."""

ALL_PERCENT = 100
_MEGABYTE = 1_000_000

Values = Mapping[str, float]
Found = tuple[Verdict, str]


def judge(fault: FileFault, before: Sample | None, during: Sample) -> Judgement:  # noqa: ARG001
    """Compare; silence confirms nothing, and what our own calls did not feel is a mismatch."""
    values = during.values
    asked = _asked(fault)
    if not values.get("in_force"):
        return Judgement(Verdict.MISMATCH, asked, "nothing of it is in force in the target")
    judges = {
        "latency": _latency,
        "fault": _failure,
        "attrOverride": _attributes,
        "mistake": _mistakes,
        "noSpace": _space,
        "powerLoss": _power,
    }
    verdict, measured = judges[fault.action](fault, values)
    return Judgement(verdict, asked, f"{measured} ({during.way})")


def _latency(fault: FileFault, values: Values) -> Found:
    asked_ms, waiting_ms = fault.delay_us / 1000, values.get("waiting_ms", 0.0)
    if waiting_ms:
        said = f"a call of ours was held for more than {waiting_ms:.0f} ms"
        return (Verdict.CONFIRMED if waiting_ms < asked_ms else Verdict.MISMATCH), said
    if "delay_ms" not in values:
        return _none(fault, values, hit="delayed")
    measured_ms, delayed = values["delay_ms"], values.get("delayed", 0)
    slack_ms = max(asked_ms * TOLERANCE, FLOOR_MS)
    said = f"latency {measured_ms:.1f} ms, mean of {_requests(delayed)}"
    felt_ms = measured_ms
    if fault.percent == ALL_PERCENT and "felt_ms" in values:
        felt_ms = values["felt_ms"]
        said += f", {felt_ms:.1f} ms felt by a call of ours"
    if min(measured_ms, felt_ms) < asked_ms - slack_ms:
        return Verdict.MISMATCH, said
    if measured_ms <= asked_ms + slack_ms:
        return _share(fault, values, delayed, said)
    if delayed < FEWEST_LATE:
        return Verdict.INCONCLUSIVE, f"{said}: too few to tell a busy host apart"
    return Verdict.MISMATCH, said


def _failure(fault: FileFault, values: Values) -> Found:
    failed, calls = values.get("failed", 0), values.get("calls", 0)
    if not failed:
        return _none(fault, values, hit="failed")
    said = f"{_requests(failed)} failed with {_name(fault.errno)}"
    as_asked = values.get("calls_failed_as_asked", 0)
    if calls and fault.percent == ALL_PERCENT:
        said += f", {as_asked:g} of {calls:g} calls of ours"
        if not as_asked:
            return Verdict.MISMATCH, said
    return _share(fault, values, failed, said)


def _attributes(fault: FileFault, values: Values) -> Found:
    overridden = values.get("overridden", 0)
    told, true = values.get("attributes_told", 0), values.get("attributes_true", 0)
    if not overridden:
        return _none(fault, values, hit="answered with other attributes")
    said = f"{overridden:g} answers with other attributes"
    if fault.percent == ALL_PERCENT and told + true:
        said += f", {told:g} of {told + true:g} seen by a call of ours"
        if true:
            return Verdict.MISMATCH, said
    return _share(fault, values, overridden, said)


def _mistakes(fault: FileFault, values: Values) -> Found:
    mistaken = values.get("mistaken", 0)
    if not mistaken:
        return _none(fault, values, hit="given wrong bytes")
    said = f"{_requests(mistaken)} with wrong bytes"
    return Verdict.CONFIRMED, said


def _space(fault: FileFault, values: Values) -> Found:  # noqa: ARG001  (as all)
    failed = values.get("failed", 0)
    if failed:
        return Verdict.CONFIRMED, f"{_requests(failed)} failed with ENOSPC"
    return Verdict.INCONCLUSIVE, "nobody has asked for more space than there is left"


def _power(fault: FileFault, values: Values) -> Found:  # noqa: ARG001  (as all)
    if lost := values.get("lost_bytes", 0):
        return Verdict.CONFIRMED, f"{lost:g} bytes that were not synced are lost"
    return Verdict.INCONCLUSIVE, "power has not failed yet: the container runs"


def _share(fault: FileFault, values: Values, hit: float, said: str) -> Found:
    """Could so many of those that matched come from draws with the percentage asked?"""
    of = values.get("matched", 0)
    if fault.percent == ALL_PERCENT or not of:
        return Verdict.CONFIRMED, said
    said += f", {hit / of * 100:.0f} % of {_requests(of)}"
    if of < FEWEST:
        return Verdict.INCONCLUSIVE, f"{said}: too few to tell"
    low, high = wilson(min(hit, of), of)
    if low <= fault.percent / 100 <= high:
        return Verdict.CONFIRMED, said
    return Verdict.MISMATCH, said


def _none(fault: FileFault, values: Values, *, hit: str) -> Found:
    """Nothing was hit: because nothing matched, by chance, or because it is not felt."""
    matched, calls = values.get("matched", 0), values.get("calls", 0)
    if matched:
        said = f"none of {_requests(matched)} was {hit}"
        _, high = wilson(0, matched)
        felt = fault.percent < ALL_PERCENT and fault.percent / 100 <= high
        return (Verdict.INCONCLUSIVE if felt else Verdict.MISMATCH), said
    if calls:
        return Verdict.INCONCLUSIVE, f"none of {calls:g} calls of ours made a request that matches"
    return Verdict.INCONCLUSIVE, "no request that matches, and no file to try it on"


def _asked(fault: FileFault) -> str:
    what = {
        "latency": f"latency {fault.delay_us / 1000:g} ms",
        "fault": f"error {_name(fault.errno)}",
        "attrOverride": f"attributes {', '.join(_told(fault.attributes))}",
        "mistake": f"{fault.mistake.filling if fault.mistake else ''} bytes in reads and writes",
        "noSpace": f"no space after {(fault.space or 0) / _MEGABYTE:g} MB",
        "powerLoss": "what is not synced can be lost",
    }[fault.action]
    asked = f"{what} in {fault.path or fault.volume}"
    if fault.methods and frozenset(fault.methods) != FELT.get(fault.action):
        asked += f" for {', '.join(fault.methods)}"
    return asked if fault.percent == ALL_PERCENT else f"{asked}, {fault.percent} %"


def _told(attributes: Attributes | None) -> list[str]:
    each = fields(Attributes)
    return [one.name for one in each if getattr(attributes, one.name, None) is not None]


def _name(number: int) -> str:
    return errno.errorcode.get(number, f"error {number}")


def _requests(count: float) -> str:
    return f"{count:g} request{'' if count == 1 else 's'}"
