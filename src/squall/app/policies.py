"""The policy of an installation: read from its file, and shown through its API."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from squall.api.cluster import CONFIG_MAP, AlreadyExists, Cluster, NotFound
from squall.api.metadata import INSTALL_NAMESPACE
from squall.api.policy import Policy
from squall.errors import InvalidFault

POLICY_NAME = "squall-policy"
"""ConfigMap in the namespace of an installation that holds its policy."""
POLICY_KEY = "policy.yaml"
"""Key of the policy in there."""


def policy_of(path: Path | None) -> Policy:
    """Read a policy; None gives one without limits, an empty file too.

    Raises:
        InvalidFault: it is no policy; nobody may act on half of one.
        OSError: it cannot be read.
    """
    if path is None:
        return Policy()
    return _read(path.read_text(), str(path))


async def published(cluster: Cluster) -> Policy:
    """Read the policy that an installation shows through its API; none shown: no limits.

    Raises:
        InvalidFault: what is shown is no policy.
        ApiError: it could not be read.
    """
    try:
        shown = await cluster.get(CONFIG_MAP, INSTALL_NAMESPACE, POLICY_NAME)
    except NotFound:
        return Policy()
    return _read((shown.get("data") or {}).get(POLICY_KEY, ""), f"ConfigMap {POLICY_NAME}")


async def publish(cluster: Cluster, policy: Policy) -> None:
    """Show a policy through an API that has no installation but this process."""
    text = yaml.safe_dump(policy.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    meta = {"name": POLICY_NAME, "namespace": INSTALL_NAMESPACE}
    try:
        await cluster.create(CONFIG_MAP, {"metadata": meta, "data": {POLICY_KEY: text}})
    except AlreadyExists:
        change = {"data": {POLICY_KEY: text}}
        await cluster.patch(CONFIG_MAP, INSTALL_NAMESPACE, POLICY_NAME, change)


def _read(text: str, where: str) -> Policy:
    try:
        return Policy.model_validate(yaml.safe_load(text) or {})
    except (yaml.YAMLError, ValidationError) as mistake:
        raise InvalidFault(f"{where} is no policy: {mistake}") from mistake
