"""Request bodies in protobuf, which newer clients send for a few of Kubernetes' own kinds.

A field that is not known here is refused, never dropped: nobody loses what they wrote.

Source: Kubernetes' generated.proto files of core/v1, meta/v1, authorization/v1 and
authentication/v1.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any

from squall.api.cluster import ApiError, Object
from squall.kubernetes.embedded.refusals import bad_request, unsupported_body

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"

Fields = Mapping[int, tuple[str, Any]]
"""Field number -> (name, type): a scalar's name, a message's fields, or a list of either."""

_REFERENCE: Fields = {
    1: ("kind", "text"),
    3: ("name", "text"),
    4: ("uid", "text"),
    5: ("apiVersion", "text"),
    6: ("controller", "flag"),
    7: ("blockOwnerDeletion", "flag"),
}
_METADATA: Fields = {
    1: ("name", "text"),
    2: ("generateName", "text"),
    3: ("namespace", "text"),
    4: ("selfLink", "text"),
    5: ("uid", "text"),
    6: ("resourceVersion", "text"),
    7: ("generation", "number"),
    8: ("creationTimestamp", "ignored"),  # set by the server
    11: ("labels", "texts by name"),
    12: ("annotations", "texts by name"),
    13: ("ownerReferences", [_REFERENCE]),
    14: ("finalizers", ["text"]),
    17: ("managedFields", "ignored"),  # of objects that were read before: not taken at creation
}
_ACCESS: Fields = {
    number: (name, "text")
    for number, name in enumerate(
        ("namespace", "verb", "group", "version", "resource", "subresource", "name"), 1
    )
}
_STATUS: tuple[str, str] = ("status", "ignored")  # of what is created, the server writes it
_KINDS: Mapping[str, Fields] = {
    "Namespace": {
        1: ("metadata", _METADATA),
        2: ("spec", {1: ("finalizers", ["text"])}),
        3: _STATUS,
    },
    "ConfigMap": {
        1: ("metadata", _METADATA),
        2: ("data", "texts by name"),
        3: ("binaryData", "octets by name"),
        4: ("immutable", "flag"),
    },
    "Secret": {
        1: ("metadata", _METADATA),
        2: ("data", "octets by name"),
        3: ("type", "text"),
        4: ("stringData", "texts by name"),
        5: ("immutable", "flag"),
    },
    "SelfSubjectReview": {1: ("metadata", _METADATA), 2: _STATUS},
    "SelfSubjectRulesReview": {
        1: ("metadata", _METADATA),
        2: ("spec", {1: ("namespace", "text")}),
        3: _STATUS,
    },
    "SelfSubjectAccessReview": {
        1: ("metadata", _METADATA),
        2: (
            "spec",
            {
                1: ("resourceAttributes", _ACCESS),
                2: ("nonResourceAttributes", {1: ("path", "text"), 2: ("verb", "text")}),
            },
        ),
        3: _STATUS,
    },
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "number"),
        2: ("preconditions", {1: ("uid", "text"), 2: ("resourceVersion", "text")}),
        3: ("orphanDependents", "flag"),
        4: ("propagationPolicy", "text"),
        5: ("dryRun", ["text"]),
    },
}
_TYPE_META: Fields = {1: ("apiVersion", "text"), 2: ("kind", "text")}
_UNKNOWN: Fields = {
    1: ("typeMeta", _TYPE_META),
    2: ("raw", "octets"),
    3: ("contentEncoding", "text"),
    4: ("contentType", "text"),
}
_TEXT_ENTRY: Fields = {1: ("name", "text"), 2: ("value", "text")}
_OCTETS_ENTRY: Fields = {1: ("name", "text"), 2: ("value", "octets")}
_LONGEST_VARINT_BITS = 63


def decode(body: bytes) -> Object:
    """Read one object from Kubernetes' protobuf envelope.

    Raises:
        ApiError: 415, its kind is not among those that clients send so; 400, it is damaged or
            has a field that is not known here.
    """
    try:
        about, raw = _opened(body)
        kind = about.get("kind", "")
        if kind not in _KINDS:
            raise unsupported_body(["application/json"])
        return {**about, **_message(raw, _KINDS[kind])}
    except (ValueError, IndexError) as wrong:
        raise _unreadable(wrong) from wrong


def _opened(body: bytes) -> tuple[dict[str, Any], bytes]:
    """Take an object out of its envelope: what it is, and its own message."""
    if not body.startswith(_MAGIC):
        raise ValueError("it does not begin as a Kubernetes object")
    envelope = _message(body[len(_MAGIC) :], _UNKNOWN)
    return envelope.get("typeMeta", {}), envelope.get("raw", b"")


def _unreadable(why: Exception) -> ApiError:
    return bad_request(f"the protobuf body cannot be read: {why}; send application/json")


def _message(octets: bytes, fields: Fields) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in _parts(octets):
        if number not in fields:
            raise ValueError(f"field {number} is not known here")
        name, form = fields[number]
        if form == "ignored":
            continue
        if isinstance(form, list):
            found.setdefault(name, []).append(_value(value, form[0]))
        elif form == "texts by name":
            entry = _message(_octets(value), _TEXT_ENTRY)
            found.setdefault(name, {})[entry.get("name", "")] = entry.get("value", "")
        elif form == "octets by name":
            entry = _message(_octets(value), _OCTETS_ENTRY)
            encoded = b64encode(entry.get("value", b"")).decode()
            found.setdefault(name, {})[entry.get("name", "")] = encoded
        elif (read := _value(value, form)) != "":
            found[name] = read
    return found


def _value(value: int | bytes, form: Any) -> Any:  # noqa: ANN401  (what the form says)
    match form:
        case "text":
            return _octets(value).decode()
        case "octets":
            return _octets(value)
        case "number":
            return _number(value)
        case "flag":
            return bool(_number(value))
        case _:
            return _message(_octets(value), form)


def _octets(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where text belongs")  # noqa: TRY004  (read as damage)
    return value


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("text where a number belongs")  # noqa: TRY004  (read as damage)
    return value - (1 << 64) if value >> 63 else value


def _parts(octets: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Take a message apart into (field number, number or octets)."""
    at = 0
    while at < len(octets):
        tag, at = _varint(octets, at)
        match tag & 7:
            case 0:
                number, at = _varint(octets, at)
                yield tag >> 3, number
            case 2:
                size, at = _varint(octets, at)
                if at + size > len(octets):
                    raise ValueError("it ends early")
                yield tag >> 3, octets[at : at + size]
                at += size
            case other:
                raise ValueError(f"wire type {other} is not expected")


def _varint(octets: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        octet = octets[at]
        at += 1
        number |= (octet & 127) << shift
        if octet < 128:  # noqa: PLR2004  (the highest bit says that more follows)
            return number, at
        shift += 7
        if shift > _LONGEST_VARINT_BITS:
            raise ValueError("a number is too long")
