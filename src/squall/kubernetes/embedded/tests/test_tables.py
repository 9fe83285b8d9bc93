from datetime import UTC, datetime, timedelta

import pytest

from squall.kubernetes.embedded.core_kinds import core_kinds
from squall.kubernetes.embedded.tables import age, cells, headings, look_up

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KINDS = {kind.resource.kind: kind for kind in core_kinds()}


@pytest.mark.parametrize(
    ("ago", "said"),
    [
        (timedelta(seconds=-5), "<invalid>"),
        (timedelta(0), "0s"),
        (timedelta(seconds=119), "119s"),
        (timedelta(seconds=120), "2m"),
        (timedelta(seconds=125), "2m5s"),
        (timedelta(minutes=10), "10m"),
        (timedelta(minutes=179), "179m"),
        (timedelta(hours=3), "3h"),
        (timedelta(hours=3, minutes=7), "3h7m"),
        (timedelta(hours=47), "47h"),
        (timedelta(days=2, hours=4), "2d4h"),
        (timedelta(days=8), "8d"),
        (timedelta(days=800), "2y70d"),
        (timedelta(days=365 * 9), "9y"),
    ],
)
def test_ages_are_told_as_kubectl_tells_them(ago, said):
    assert age((NOON - ago).strftime("%Y-%m-%dT%H:%M:%SZ"), NOON) == said


@pytest.mark.parametrize("moment", [None, "soon", "2026-01-01T12:00:00"])
def test_what_is_no_moment_has_no_age(moment):
    assert age(moment, NOON) == "<unknown>"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".spec.mode", "one"),
        (".spec.parts[1]", "b"),
        ('.status.conditions[?(@.type=="Ready")].status', "True"),
        ('.status.conditions[?(@.type=="Gone")].status', None),
        (".spec.mode.deeper", None),
        (".spec.parts[7]", None),
    ],
)
def test_columns_find_their_value(path, value):
    conditions = [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]
    obj = {"spec": {"mode": "one", "parts": ["a", "b"]}, "status": {"conditions": conditions}}
    assert look_up(obj, path) == value


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_cell_for_every_column(kind):
    obj = {"metadata": {"name": "x", "creationTimestamp": "2026-01-01T11:59:00Z"}}
    assert len(cells(KINDS[kind], obj, NOON)) == len(headings(KINDS[kind]))


def test_a_field_of_an_unexpected_type_leaves_its_row_empty():
    odd = {"metadata": {"name": "x"}, "status": {"containerStatuses": [{"restartCount": "no"}]}}
    assert cells(KINDS["Pod"], odd, NOON) == ["x", *[None] * 8]
