"""Names of objects that are made up of other names."""

from hashlib import sha256

MOST_NAME = 253
"""Characters of a name; RFC 1123 as Kubernetes reads it ("Object Names and IDs")."""
DIGEST_DIGITS = 10


def fitting(name: str) -> str:
    """Shorten a name that is too long; a digest keeps it different from all others."""
    if len(name) <= MOST_NAME:
        return name
    digest = sha256(name.encode()).hexdigest()[:DIGEST_DIGITS]
    # A cut may fall behind a dot, and each part between dots must end with a letter or digit.
    return f"{name[: MOST_NAME - DIGEST_DIGITS - 1].rstrip('-.')}-{digest}"


def agent_lease_name(node: str) -> str:
    """Name the Lease by which the agent of a node says that it runs there."""
    return fitting(f"squall-agent-{node}")
