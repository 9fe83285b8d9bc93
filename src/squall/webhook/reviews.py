"""AdmissionReview v1: what an API server asks, and the answers it understands; pure.

Source: Kubernetes, `admission.k8s.io/v1`; "Dynamic Admission Control".
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from squall.api.cluster import Object
from squall.api.served import Cause

API_VERSION = "admission.k8s.io/v1"
KIND = "AdmissionReview"

_INVALID, _FORBIDDEN, _BAD_REQUEST, _UNAVAILABLE = 422, 403, 400, 503


class NotAReview(Exception):
    """What was sent is no AdmissionReview, so that it cannot even be refused as one."""


@dataclass(frozen=True, slots=True)
class User:
    """Who asks, as the API server found out; passed on as it is."""

    name: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Review:
    """One request for admission."""

    uid: str
    """Must be in the answer."""
    kind: str
    """Of the object, such as NetworkChaos."""
    group: str
    operation: str
    """CREATE, UPDATE, DELETE or CONNECT."""
    namespace: str
    """Empty where the object is cluster-scoped."""
    name: str
    """Empty where the API server will make one up."""
    user: User
    object: Object
    """Empty where there is none, as in a DELETE."""
    old: Object | None
    """The object as it is stored; None at creation."""


def decode(body: bytes) -> Review:
    """Read a request.

    Raises:
        NotAReview: it has no uid to answer to, or is no JSON; the message says why.
    """
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError as broken:
        raise NotAReview(f"the body is no JSON: {broken}") from None
    if not isinstance(sent, dict) or sent.get("kind") != KIND:
        raise NotAReview(f"the body is no {KIND}")
    if sent.get("apiVersion") != API_VERSION:
        raise NotAReview(
            f"{KIND} of {API_VERSION} is spoken here; name that in admissionReviewVersions"
        )
    request = _mapping(sent.get("request"))
    uid = _text(request.get("uid"))
    if not uid:
        raise NotAReview("request.uid is missing")
    kind, old = _mapping(request.get("kind")), request.get("oldObject")
    return Review(
        uid=uid,
        kind=_text(kind.get("kind")),
        group=_text(kind.get("group")),
        operation=_text(request.get("operation")),
        namespace=_text(request.get("namespace")),
        name=_text(request.get("name")),
        user=_user(_mapping(request.get("userInfo"))),
        object=_mapping(request.get("object")),
        old=old if isinstance(old, dict) else None,
    )


def allowed(review: Review, patch: Sequence[Object] = ()) -> Object:
    """Let an object pass, changed by a JSON patch (RFC 6902) where there is one."""
    response: Object = {"allowed": True}
    if patch:
        response |= {
            "patchType": "JSONPatch",
            "patch": b64encode(orjson.dumps(list(patch))).decode(),
        }
    return _answer(review, response)


def refused(review: Review, causes: Sequence[Cause]) -> Object:
    """Refuse an object for what is in it; every reason at once."""
    said = [str(cause) if cause.field else cause.message for cause in causes]
    details: Object = {
        "name": review.name,
        "group": review.group,
        "kind": review.kind,
        "causes": [{"field": c.field, "reason": c.reason, "message": c.message} for c in causes],
    }
    message = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    return _refusal(review, _INVALID, "Invalid", message, details)


def forbidden(review: Review, message: str) -> Object:
    """Refuse because the user may not do it."""
    return _refusal(review, _FORBIDDEN, "Forbidden", message)


def undecided(review: Review, message: str) -> Object:
    """Refuse because nobody could find out whether the user may do it."""
    return _refusal(review, _UNAVAILABLE, "ServiceUnavailable", message)


def misdirected(review: Review, message: str) -> Object:
    """Refuse because this was never to be asked here."""
    return _refusal(review, _BAD_REQUEST, "BadRequest", message)


def _refusal(
    review: Review, code: int, reason: str, message: str, details: Object | None = None
) -> Object:
    status: Object = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
    return _answer(
        review,
        {"allowed": False, "status": status | ({"details": details} if details else {})},
    )


def _answer(review: Review, response: Object) -> Object:
    return {"apiVersion": API_VERSION, "kind": KIND, "response": {"uid": review.uid, **response}}


def _user(sent: dict[str, Any]) -> User:
    groups, extra = sent.get("groups"), _mapping(sent.get("extra"))
    return User(
        name=_text(sent.get("username")),
        uid=_text(sent.get("uid")),
        groups=tuple(map(_text, groups)) if isinstance(groups, list) else (),
        extra={
            name: list(map(_text, values))
            for name, values in extra.items()
            if isinstance(values, list)
        },
    )


def _mapping(value: Any) -> dict[str, Any]:  # noqa: ANN401  (any JSON)
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:  # noqa: ANN401  (any JSON)
    return value if isinstance(value, str) else ""
