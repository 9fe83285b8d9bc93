"""Quantities as text on the wire; every notation is parsed here and nowhere else."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema
from pydantic.config import JsonDict

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # U+00B5, micro sign
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_PART = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<unit>[a-zµμ]+)")
_LONGEST_NANOSECONDS = 2**63 - 1
_FLOAT = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_BYTES_PER_SECOND = {
    suffix: scale * size
    for prefix, scale in {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}.items()
    for suffix, size in ((f"{prefix}bps", 1.0), (f"{prefix}bit", 1 / 8))
}
_RATE = re.compile(r"(?P<number>[0-9]{1,19}) *(?P<unit>[a-z]+)")
_SIZE = re.compile(r"(?P<number>[0-9]{1,19}(?:\.[0-9]{1,9})?) ?(?P<unit>[kmgtp]?)(?:i?b)?")
_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_PERCENT = re.compile(r"[+-]?[0-9]{1,9}")
_MOST = 100


def duration(text: str) -> timedelta:
    """Read a duration in Go's notation: `1h30m`, `1.5s`, `-10ms`, `0`.

    Args:
        text: an optional sign, then numbers with a unit each of ns, us, µs, ms, s, m and h.

    Returns:
        Its length, cut to whole microseconds.

    Raises:
        ValueError: anything else, and more than 292 years (Go counts nanoseconds in 63 bits).

    Source: Go time.ParseDuration.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return timedelta(0)
    nanoseconds, at = 0, 0
    while part := _DURATION_PART.match(rest, at):
        scale = _NANOSECONDS.get(part["unit"])
        if scale is None:
            break
        whole, _, fraction = part["number"].partition(".")
        # Digits beyond 18 cannot matter, and int() of a megabyte of digits takes minutes.
        nanoseconds += int(whole.lstrip("0")[:20] or 0) * scale
        nanoseconds += int(fraction[:18] or 0) * scale // 10 ** len(fraction[:18])
        at = part.end()
    if at == 0 or at != len(rest):
        raise ValueError("is not a duration; write it as 10ms, 1.5s or 2h45m")
    if nanoseconds > _LONGEST_NANOSECONDS:
        raise ValueError("is longer than 292 years; leave it out for no end")
    return sign * timedelta(microseconds=nanoseconds // 1000)


def duration_text(length: timedelta) -> str:
    """Write a duration in the largest unit that needs no fraction: `90s`, `1500us`, `0s`."""
    microseconds = length // timedelta(microseconds=1)
    for unit, size in (("h", 3600 * 10**6), ("m", 60 * 10**6), ("s", 10**6), ("ms", 1000)):
        if microseconds % size == 0 and (microseconds or unit == "s"):
            return f"{microseconds // size}{unit}"
    return f"{microseconds}us"


def percentage(text: str) -> float:
    """Read a percentage without its sign: `25`, `0.5`, `1e-3`.

    Raises:
        ValueError: not a number, or outside 0 to 100, which tc would refuse at injection.
    """
    if not _FLOAT.fullmatch(text):
        raise ValueError("is not a number; write a percentage as 25 or 0.5, without a percent sign")
    number = float(text)
    if not 0 <= number <= _MOST:
        raise ValueError("is not a percentage; it must be from 0 to 100")
    return number


def number_text(number: float) -> str:
    """Write a number that reads back as the same number: `25`, `0.5`."""
    return str(int(number)) if number == int(number) else repr(number)


def bytes_per_second(text: str) -> int:
    """Read a rate in tc notation, in which `bps` means BYTES per second.

    Args:
        text: digits and one of bit, kbit, mbit, gbit, tbit, bps, kbps, mbps, gbps, tbps.

    Returns:
        Whole bytes per second, rounded down; prefixes are powers of 1000.

    Raises:
        ValueError: no number, no such unit, or less than one byte per second.

    Source: tc(8) RATES.
    """
    rate = _RATE.fullmatch(text.strip().lower())
    if rate is None or rate["unit"] not in _BYTES_PER_SECOND:
        units = ", ".join(_BYTES_PER_SECOND)
        raise ValueError(f"is not a rate; write digits and one of {units}")
    result = int(int(rate["number"]) * _BYTES_PER_SECOND[rate["unit"]])
    if result == 0:
        raise ValueError("is less than 1 byte/s: nothing would ever pass; use action: partition")
    return result


@dataclass(frozen=True, slots=True)
class Size:
    """An amount of memory: so many bytes, or a share of what there is."""

    bytes: int = 0
    percent: int | None = None

    def of(self, limit_bytes: int) -> int:
        """Bytes that are meant where `limit_bytes` is all there is."""
        return self.bytes if self.percent is None else limit_bytes * self.percent // _MOST

    def __str__(self) -> str:
        """As on the wire: `256000000` or `70%`."""
        return str(self.bytes) if self.percent is None else f"{self.percent}%"


def size(text: str) -> Size:
    """Read an amount of memory: `256MB`, `1.5g`, `70%`.

    Args:
        text: a whole percentage, or a number with an optional unit; `k` and `KiB` alike mean
            1000 bytes, as upstream reads them.

    Raises:
        ValueError: anything else. Source: docker/go-units FromHumanSize.
    """
    if text.endswith("%"):
        percent = text.removesuffix("%")
        if not _PERCENT.fullmatch(percent):
            raise ValueError("incorrect bytes format: a share is a whole number, as 70%")
        if not 0 <= int(percent) <= _MOST:
            raise ValueError("illegal proportion: it must be from 0% to 100%")
        return Size(percent=int(percent))
    amount = _SIZE.fullmatch(text.lower())
    if amount is None:
        raise ValueError("incorrect bytes format: write it as 256MB or 1.5GB, or a share as 70%")
    return Size(bytes=int(float(amount["number"]) * _BYTES[amount["unit"]]))


def _read(parse: Any, parsed: type) -> BeforeValidator:  # noqa: ANN401
    def read(value: object) -> object:
        if isinstance(value, parsed) and not isinstance(value, str):
            return value
        if not isinstance(value, str):
            raise ValueError("must be a string")  # noqa: TRY004  (pydantic gathers ValueErrors)
        return parse(value)

    return BeforeValidator(read)


def _format_int32(schema: JsonDict) -> None:
    # Upstream's schemas carry no such bound; an API server takes the format for a remark.
    del schema["maximum"]
    schema["format"] = "int32"


_TEXT = WithJsonSchema({"type": "string"})
Duration = Annotated[
    timedelta, _read(duration, timedelta), PlainSerializer(duration_text, return_type=str), _TEXT
]
TcDuration = Annotated[
    Duration,
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h)$"}),
]
"""One number and one unit, without a sign."""
Percentage = Annotated[
    float, _read(percentage, float), PlainSerializer(number_text, return_type=str), _TEXT
]
ByteRate = Annotated[
    int,
    _read(bytes_per_second, int),
    PlainSerializer(lambda rate: f"{rate}bps", return_type=str),
    _TEXT,
]
MemorySize = Annotated[Size, _read(size, Size), PlainSerializer(str, return_type=str), _TEXT]
Int32 = Annotated[int, Field(le=2**31 - 1, json_schema_extra=_format_int32)]
Int64 = Annotated[int, Field(json_schema_extra={"format": "int64"})]
