"""What was asked of an API server, by whom: read from its audit log."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})

IDLE = frozenset({"leases"})
"""Resources that are written whether or not an experiment runs."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as far as counting goes."""

    user: str
    verb: str
    resource: str
    """Plural, with `/status` where only that was asked for."""
    namespace: str
    code: int

    @property
    def writes(self) -> bool:
        """Does it change something?"""
        return self.verb in WRITES


class Audit:
    """Reads what was added to the log since the last look."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.skip()

    def skip(self) -> None:
        """Forget what was asked until now."""
        self._offset = self._path.stat().st_size if self._path.exists() else 0

    def rewind(self) -> None:
        """Begin with what was asked first of all."""
        self._offset = 0

    def read(self) -> list[Request]:
        """Tell what was asked since; a watch counts when it begins."""
        with self._path.open("rb") as log:
            log.seek(self._offset)
            added = log.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        return list(_requests(whole.splitlines()))


def _requests(lines: Iterable[bytes]) -> Iterator[Request]:
    for line in lines:
        entry = json.loads(line)
        about = entry.get("objectRef") or {}
        counted = "ResponseStarted" if entry["verb"] == "watch" else "ResponseComplete"
        if entry["stage"] != counted or not about:
            continue
        part = f"/{about['subresource']}" if about.get("subresource") else ""
        yield Request(
            user=entry["user"]["username"],
            verb=entry["verb"],
            resource=about.get("resource", "") + part,
            namespace=about.get("namespace", ""),
            code=(entry.get("responseStatus") or {}).get("code", 0),
        )


def for_experiments(requests: Iterable[Request], users: Iterable[str]) -> list[Request]:
    """Leave out what is asked without any experiment: leases, and watches that begin anew."""
    known = frozenset(users)
    return [
        request
        for request in requests
        if request.user in known
        and request.verb not in {"list", "watch"}
        and request.resource not in IDLE
    ]


def table(requests: Iterable[Request]) -> str:
    """Count by user, verb and resource."""
    counted = Counter((one.user, one.verb, one.resource, one.code) for one in requests)
    return "\n".join(
        f"    {count:6d}  {user} {verb} {resource} {code}"
        for (user, verb, resource, code), count in sorted(counted.items())
    )
