"""Who may read the metrics: the API server knows every token and what its owner may do."""

import hashlib
from http import HTTPStatus

from squall.api.cluster import ApiError, Cluster, Resource
from squall.clock import Clock
from squall.telemetry import logger

TOKEN_REVIEW = Resource(
    "authentication.k8s.io", "v1", "TokenReview", "tokenreviews", namespaced=False
)
ACCESS_REVIEW = Resource(
    "authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False
)
REMEMBERED_SECONDS = 60.0
_MOST_REMEMBERED = 100
"""Nobody may fill the memory with tokens of their own making."""


class Admittance:
    """Judges callers of `/metrics`, and remembers each for a minute."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster, self._clock = cluster, clock
        self._judged: dict[bytes, tuple[float, HTTPStatus]] = {}
        """Until when, in boot time, and what; by digest, since tokens are not to be kept."""

    async def judge(self, authorization: str) -> HTTPStatus:
        """Say OK, or why not: no such token, not allowed, or the API server does not say.

        Args:
            authorization: the header of that name, as it came.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return HTTPStatus.UNAUTHORIZED
        digest = hashlib.sha256(token.strip().encode()).digest()
        now = self._clock.boottime()
        ends, judged = self._judged.get(digest, (now, HTTPStatus.OK))
        if now < ends:
            return judged
        try:
            judged = await self._ask(token.strip())
        except ApiError as refused:
            logger(__name__).warning("nobody can say who may read the metrics: %s", refused)
            return HTTPStatus.SERVICE_UNAVAILABLE
        self._judged.pop(digest, None)
        while len(self._judged) >= _MOST_REMEMBERED:
            del self._judged[next(iter(self._judged))]
        self._judged[digest] = (now + REMEMBERED_SECONDS, judged)
        return judged

    async def _ask(self, token: str) -> HTTPStatus:
        """Ask whose token it is, then what they may do, as the API server's own /metrics does."""
        review = {"metadata": {}, "spec": {"token": token}}
        status = (await self._cluster.create(TOKEN_REVIEW, review)).get("status") or {}
        if not status.get("authenticated"):
            return HTTPStatus.UNAUTHORIZED
        user = status.get("user") or {}
        spec = {
            "user": user.get("username", ""),
            "uid": user.get("uid", ""),
            "groups": user.get("groups") or [],
            "extra": user.get("extra") or {},
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        }
        access = await self._cluster.create(ACCESS_REVIEW, {"metadata": {}, "spec": spec})
        allowed = (access.get("status") or {}).get("allowed")
        return HTTPStatus.OK if allowed else HTTPStatus.FORBIDDEN
