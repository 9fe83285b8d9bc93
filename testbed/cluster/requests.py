"""Who asked the API server for what, counted from its audit log."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple


class Request(NamedTuple):
    """One way of asking."""

    user: str
    """Such as `system:serviceaccount:squall:squall-agent`; empty for one who could not say."""
    verb: str
    """Such as get, list, watch, create, patch."""
    resource: str
    """Such as `nodefaults.chaos-mesh.org/status`; a path for what is no resource."""


def count(log: Path, code: int | None = None) -> Counter[Request]:
    """Count the requests of everybody but Kubernetes' own components.

    A watch counts once, when it begins. Take an earlier count away to know of one period.

    Args:
        log: of the API server.
        code: of the answer, such as 403; None: whatever was answered.
    """
    counted: Counter[Request] = Counter()
    seen: set[str] = set()
    if not log.exists():
        return counted
    for line in log.read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # it is being written
            continue
        answered = event.get("responseStatus", {}).get("code")
        if event["auditID"] not in seen and code in {None, answered}:
            seen.add(event["auditID"])
            user = event["user"].get("username", "")  # a token that nobody knows has none
            counted[Request(user, event["verb"], _resource(event))] += 1
    return counted


def _resource(event: dict[str, dict[str, str]]) -> str:
    reference = event.get("objectRef")
    if reference is None or "resource" not in reference:
        return str(event["requestURI"]).partition("?")[0]
    group = f".{reference['apiGroup']}" if "apiGroup" in reference else ""
    below = f"/{reference['subresource']}" if "subresource" in reference else ""
    return f"{reference['resource']}{group}{below}"
