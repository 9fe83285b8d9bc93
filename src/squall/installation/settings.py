"""What may be chosen about an installation in a cluster."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import yaml
from pydantic import ValidationError

from squall.api.metadata import INSTALL_NAMESPACE
from squall.api.policy import Policy
from squall.errors import InvalidFault

KUBE_SYSTEM = "kube-system"
POLICY_PREFIX = "policy."
IMAGE = "squall"
"""Name of the image, its version follows as tag."""
LEASE_SECONDS = 60.0
PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
"""As the chart has it; nodes of most clusters have it for their own use."""


def default_image() -> str:
    """Name the image of this version, as it is built and loaded without any registry."""
    return f"{IMAGE}:{version('squall')}"


@dataclass(frozen=True, slots=True)
class Settings:
    """One installation."""

    namespace: str = INSTALL_NAMESPACE
    """Where its processes and NodeFaults live."""
    image: str = field(default_factory=default_image)
    """Of every container it starts."""
    lease_seconds: float = LEASE_SECONDS
    """How long faults outlive the silence of the controller."""
    pause_image: str = PAUSE_IMAGE
    """Of the containers of a pod while a pod-failure is live."""
    policy: Policy = field(default_factory=Policy)
    """Its `target_namespace`, when given, also limits what the installation may read and write."""


def policy_of(
    namespace: str,
    assignments: Iterable[str] = (),
    *,
    target_namespace: str = "",
    opt_in_namespaces: bool = False,
) -> Policy:
    """Build the policy of an installation from what the command line says.

    Args:
        namespace: of the installation; protected, as kube-system is, unless a `--set` says else.
        assignments: `policy.<field>=<value>` each, the value in YAML, as the chart's values.
        target_namespace: the only namespace whose pods may be hit; empty: any.
        opt_in_namespaces: hit only namespaces that are annotated for it.

    Raises:
        InvalidFault: the target namespace is that of the installation; an assignment names no
            such field, or its value does not fit.
    """
    if target_namespace == namespace:
        raise InvalidFault(
            f"--target-namespace {target_namespace} is the namespace of the installation: whoever "
            "may write there would be root on every node, so install into one of its own"
        )
    chosen: dict[str, Any] = {
        "targetNamespace": target_namespace,
        "protectedNamespaces": [KUBE_SYSTEM, namespace],
        "optInNamespaces": opt_in_namespaces,
    }
    fields = {str(one.alias or name) for name, one in Policy.model_fields.items()}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        name = key.removeprefix(POLICY_PREFIX)
        if not (equals and key.startswith(POLICY_PREFIX) and name in fields):
            known = ", ".join(f"{POLICY_PREFIX}{one}=..." for one in sorted(fields))
            raise InvalidFault(f"--set {assignment}: there is no such setting; there are: {known}")
        try:
            chosen[name] = yaml.safe_load(value)
        except yaml.YAMLError as mistake:
            raise InvalidFault(f"--set {assignment}: the value is not YAML") from mistake
    try:
        return Policy.model_validate(chosen)
    except ValidationError as refused:
        first = refused.errors()[0]
        where = POLICY_PREFIX + ".".join(str(part) for part in first["loc"])
        raise InvalidFault(f"--set {where}: {first['msg']}, not {first['input']!r}") from refused


def policy_text(policy: Policy) -> str:
    """Write a policy as the file that controller and agents read."""
    return yaml.safe_dump(policy.model_dump(by_alias=True), sort_keys=False)
