"""Questions about oneself: whoever has the token may do everything."""

from typing import Any

from squall.api.cluster import Object

USER = "squall:admin"

_ALL = ["*"]
_ANSWERS: dict[str, Object] = {
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": {"allowed": True},
    "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews": {
        "resourceRules": [{"verbs": _ALL, "apiGroups": _ALL, "resources": _ALL}],
        "nonResourceRules": [{"verbs": _ALL, "nonResourceURLs": _ALL}],
        "incomplete": False,
    },
    "/apis/authentication.k8s.io/v1/selfsubjectreviews": {
        "userInfo": {"username": USER, "groups": ["system:masters", "system:authenticated"]}
    },
}
PATHS = frozenset(_ANSWERS)


def review(path: str, asked: Any) -> Object:  # noqa: ANN401  (whatever was sent)
    """Answer a review that was sent to one of `PATHS`."""
    return {**(asked if isinstance(asked, dict) else {}), "status": _ANSWERS[path]}
