import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.api.cluster import ApiError
from squall.kubernetes.embedded.protobuf import decode


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def envelope(kind: bytes, *fields: bytes) -> bytes:
    about = field(1, b"v1") + field(2, kind)
    return b"k8s\0" + field(1, about) + field(2, b"".join(fields)) + field(3, b"") + field(4, b"")


NAME = field(1, field(1, b"c1"))


def test_a_config_map_is_read():
    body = envelope(b"ConfigMap", NAME, field(2, field(1, b"a") + field(2, b"b")), field(4, 1))
    assert decode(body) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c1"},
        "data": {"a": "b"},
        "immutable": True,
    }


def test_octets_become_base64():
    body = envelope(b"Secret", NAME, field(2, field(1, b"a") + field(2, b"\xff")))
    assert decode(body)["data"] == {"a": "/w=="}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (envelope(b"Pod", NAME), 415),
        (envelope(b"ConfigMap", NAME, field(9, b"x")), 400),
        (envelope(b"ConfigMap", field(1, field(15, b"x"))), 400),
        (envelope(b"ConfigMap", field(4, b"x")), 400),
        (envelope(b"ConfigMap", NAME)[:-9], 400),
        (b"k8s\0" + b"\xff" * 30, 400),
        (b"{}", 400),
    ],
)
def test_what_would_be_lost_is_refused(body, code):
    with pytest.raises(ApiError) as refused:
        decode(body)
    assert refused.value.code == code


@given(st.binary(max_size=60))
def test_any_octets_are_read_or_refused(octets):
    code = None
    try:
        decode(b"k8s\0" + octets)
    except ApiError as refused:
        code = refused.code
    assert code in (None, 400, 415)
