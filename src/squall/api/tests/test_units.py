from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from squall.api.units import (
    ByteRate,
    Duration,
    MemorySize,
    Percentage,
    Size,
    bytes_per_second,
    duration,
    duration_text,
    percentage,
    size,
)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("0", timedelta(0)),
        ("10ms", timedelta(milliseconds=10)),
        ("1.5s", timedelta(seconds=1.5)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("-.5h", timedelta(minutes=-30)),
        ("+5m1.s", timedelta(minutes=5, seconds=1)),
        ("7us", timedelta(microseconds=7)),
        ("7µs", timedelta(microseconds=7)),
        ("7μs", timedelta(microseconds=7)),
        ("1999ns", timedelta(microseconds=1)),
    ],
)
def test_durations_read_as_go_reads_them(text, length):
    assert duration(text) == length


@pytest.mark.parametrize(
    "text",
    ["", "-", "10", "s", ".s", "1d", "1 s", "1h-30m", "--1s", "1e3s", "\u0661s", "1S"],
)
def test_what_go_refuses_as_a_duration_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration; write it as"):
        duration(text)


@pytest.mark.parametrize("text", ["2562048h", "9" * 5000 + "h", "1000000000000000000000ns"])
def test_a_duration_beyond_63_bits_of_nanoseconds_is_refused(text):
    with pytest.raises(ValueError, match="longer than 292 years"):
        duration(text)


@given(st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)))
def test_a_written_duration_reads_back(length):
    assert duration(duration_text(length)) == length


def test_durations_are_written_in_the_largest_whole_unit():
    assert [duration_text(duration(text)) for text in ("90s", "0ms", "1500us", "120m")] == [
        "90s",
        "0s",
        "1500us",
        "2h",
    ]


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("25", 25), ("0.5", 0.5), (".5", 0.5), ("1e1", 10), ("+7.", 7)]
)
def test_percentages_read_as_go_reads_floats(text, number):
    assert percentage(text) == number


@pytest.mark.parametrize("text", ["", "25%", "nan", "inf", "1_0", "0x10", " 1", "1e9999"])
def test_what_is_no_number_is_no_percentage(text):
    with pytest.raises(ValueError, match="is not a number"):
        percentage(text)


@pytest.mark.parametrize("text", ["-1", "100.1", "1e9"])
def test_a_percentage_outside_0_to_100_is_refused(text):
    with pytest.raises(ValueError, match="must be from 0 to 100"):
        percentage(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1mbps", 1_000_000),
        ("1mbit", 125_000),
        ("100kbps", 100_000),
        ("8bit", 1),
        (" 2 GBIT ", 250_000_000),
        ("1tbps", 10**12),
    ],
)
def test_rates_read_as_tc_reads_them(text, rate):
    assert bytes_per_second(text) == rate


@pytest.mark.parametrize("text", ["", "100", "mbps", "-1mbps", "1.5mbps", "1mib", "1mbps/s"])
def test_what_is_no_rate_is_refused_with_the_units_there_are(text):
    with pytest.raises(ValueError, match="is not a rate; write digits and one of bps"):
        bytes_per_second(text)


@pytest.mark.parametrize("text", ["0mbps", "7bit"])
def test_a_rate_of_nothing_points_to_partition(text):
    with pytest.raises(ValueError, match="use action: partition"):
        bytes_per_second(text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("256MB", Size(bytes=256_000_000)),
        ("256", Size(bytes=256)),
        ("1.5g", Size(bytes=1_500_000_000)),
        ("2 KiB", Size(bytes=2000)),
        ("1b", Size(bytes=1)),
        ("70%", Size(percent=70)),
        ("0%", Size(percent=0)),
    ],
)
def test_sizes_read_as_docker_reads_them(text, amount):
    assert size(text) == amount


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1.5%", "%", "1 XB", "12MBB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="incorrect bytes format"):
        size(text)


@pytest.mark.parametrize("text", ["101%", "-1%"])
def test_a_share_outside_0_to_100_is_refused(text):
    with pytest.raises(ValueError, match="illegal proportion"):
        size(text)


def test_a_share_is_taken_of_the_limit():
    assert size("70%").of(1000) == 700
    assert size("1k").of(10) == 1000


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Duration, timedelta(seconds=3)),
        (Percentage, 12.5),
        (ByteRate, 125_000),
        (MemorySize, Size(percent=70)),
        (MemorySize, Size(bytes=7)),
    ],
)
def test_what_is_written_to_the_wire_is_text_and_reads_back(type_, value):
    adapter = TypeAdapter(type_)
    text = adapter.dump_python(value, mode="json")
    assert isinstance(text, str)
    assert adapter.validate_python(text) == value


@pytest.mark.parametrize("type_", [Duration, Percentage, MemorySize])
@pytest.mark.parametrize("value", [None, [], {}, 5j])
def test_what_is_no_text_is_refused(type_, value):
    with pytest.raises(ValidationError, match="must be a string"):
        TypeAdapter(type_).validate_python(value)


@given(st.text())
def test_no_text_raises_anything_but_a_value_error(text):
    for read in (duration, percentage, bytes_per_second, size):
        with suppress(ValueError):
            read(text)
