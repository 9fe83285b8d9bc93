"""The objects of an installation, from the manifests that are rendered from the Helm chart.

What may be chosen stands in them as placeholders; `make generate` renders them anew.
"""

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import yaml

from squall.api.cluster import NAMESPACE, WORKLOAD, Object
from squall.api.crd import definition
from squall.api.metadata import PART_OF, SQUALL
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.installation.resources import CONFIG_MAP, DEPLOYMENT, rank_of, resource_of
from squall.installation.settings import Settings, policy_text

NAMESPACE_PLACEHOLDER = "squall-namespace-placeholder"
TARGET_PLACEHOLDER = "squall-target-placeholder"
IMAGE_PLACEHOLDER = "squall-image-placeholder:0"
POLICY_CONFIG_MAP = "squall-policy"
POLICY_KEY = "policy.yaml"
POLICY_CHECKSUM = "checksum/policy"
"""Annotation of pod templates: changes with the policy, so that processes start anew with it."""

POD_SECURITY = "pod-security.kubernetes.io/enforce"
"""Label of a namespace: which pods may run in it (Pod Security Standards)."""
PRIVILEGED = "privileged"

CLUSTER, NAMESPACED = "cluster.yaml", "namespaced.yaml"
"""The two shapes: one that may hit pods of every namespace, one that may in a single one."""

_LEASE = re.compile(r"(--lease-seconds=)[\d.]+")


def objects(settings: Settings) -> list[Object]:
    """Give every object of an installation, in the order in which they are put in."""
    shape = NAMESPACED if settings.policy.target_namespace else CLUSTER
    text = files("squall.installation").joinpath("manifests", shape).read_text()
    return _ordered([namespace_of(settings), *filled(text, settings), *definitions()])


def namespace_of(settings: Settings) -> Object:
    """Make the namespace; agents see every process of their node, which restricted ones forbid."""
    return {
        "apiVersion": NAMESPACE.api_version,
        "kind": NAMESPACE.kind,
        "metadata": {
            "name": settings.namespace,
            "labels": {
                "app.kubernetes.io/name": SQUALL,
                PART_OF: SQUALL,
                POD_SECURITY: PRIVILEGED,
            },
        },
    }


def definitions() -> list[Object]:
    """Give the definition of every kind that somebody serves in a cluster."""
    served = (kind for kind in served_kinds(kinds()) if kind.resource != WORKLOAD)
    return [definition(kind) for kind in served]


def filled(text: str, settings: Settings) -> list[Object]:
    """Read manifests and put what was chosen in the place of the placeholders.

    Args:
        text: YAML documents.
        settings: what was chosen.
    """
    words = {
        NAMESPACE_PLACEHOLDER: settings.namespace,
        TARGET_PLACEHOLDER: settings.policy.target_namespace,
        IMAGE_PLACEHOLDER: settings.image,
    }
    lease = f"{settings.lease_seconds:g}"
    policy = policy_text(settings.policy)
    checksum = hashlib.sha256(policy.encode()).hexdigest()

    def fill(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
        if isinstance(value, dict):
            return {
                fill(key): checksum if key == POLICY_CHECKSUM else fill(one)
                for key, one in value.items()
            }
        if isinstance(value, list):
            return [fill(one) for one in value]
        if isinstance(value, str):
            for placeholder, word in words.items():
                value = value.replace(placeholder, word)
            return _LEASE.sub(rf"\g<1>{lease}", value)
        return value

    found: list[Object] = [fill(one) for one in yaml.safe_load_all(text) if one is not None]
    for obj in found:
        if obj["kind"] == CONFIG_MAP.kind and obj["metadata"]["name"] == POLICY_CONFIG_MAP:
            obj["data"][POLICY_KEY] = policy
    return found


def images(found: Sequence[Object]) -> list[str]:
    """List every image that the containers of these objects name, each once."""
    named = {
        container["image"]
        for obj in found
        if resource_of(obj).group == DEPLOYMENT.group
        for kind in ("initContainers", "containers")
        for container in obj["spec"]["template"]["spec"].get(kind, ())
    }
    return sorted(named)


def as_yaml(found: Sequence[Object]) -> str:
    """Write objects as `kubectl apply -f -` reads them."""
    return yaml.safe_dump_all(found, sort_keys=False, width=100, explicit_start=True)


def _ordered(found: Sequence[Object]) -> list[Object]:
    return sorted(found, key=lambda obj: (rank_of(obj), obj["metadata"]["name"]))
