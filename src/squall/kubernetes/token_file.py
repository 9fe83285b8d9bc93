"""The token of a service account, which kubelet replaces while it is used."""

import time
from collections.abc import Callable, Generator
from pathlib import Path

import httpx2

from squall.api.cluster import ApiError

READ_SECONDS = 60.0
"""How old what was read may be; kubelet replaces a token long before it expires."""


class TokenFile(httpx2.Auth):
    """Shows the token that stands in a file; looks again after a minute, and when it is refused.

    Args:
        path: the file.
        now: seconds that only grow.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._path, self._now = path, now
        self._token, self._read_at = "", 0.0

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Send a request with the token; once more with a newer one if it is refused."""
        if not self._token or self._now() - self._read_at >= READ_SECONDS:
            self._read()
        shown = self._token
        request.headers["Authorization"] = f"Bearer {shown}"
        response = yield request
        if response.status_code != httpx2.codes.UNAUTHORIZED:
            return
        self._read()
        if self._token != shown:
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def _read(self) -> None:
        """Read the file; one that cannot be read now leaves the token as it is."""
        self._read_at = self._now()
        try:
            self._token = self._path.read_text().strip() or self._token
        except OSError as error:
            if not self._token:
                message = f"{self._path}: {error.strerror}; without a token nobody answers"
                raise ApiError(httpx2.codes.UNAUTHORIZED, "NoToken", message) from error
