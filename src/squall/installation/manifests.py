"""The objects of an installation, from the manifests that are rendered from the Helm chart.

What may be chosen stands in them as placeholders; `make generate` renders them anew.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Protocol

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
IMAGE_PLACEHOLDER = "squall-image-placeholder:placeholder"
PAUSE_PLACEHOLDER = "squall-pause-placeholder:placeholder"
WEBHOOK = "squall-webhook"
"""Of the webhook's Service, Secret and configurations; in a namespaced shape, its namespace
follows."""
LONGEST_NAME = 63
OPT_IN = "opt-in-"
"""Prefix of files with the objects that differ where namespaces opt in."""
POLICY_CONFIG_MAP = "squall-policy"
POLICY_KEY = "policy.yaml"
POLICY_CHECKSUM = "checksum/policy"
"""Annotation of pod templates: changes with the policy, so that processes start anew with it."""

POD_SECURITY = "pod-security.kubernetes.io/enforce"
"""Label of a namespace: which pods may run in it (Pod Security Standards)."""
PRIVILEGED = "privileged"

CLUSTER, NAMESPACED = "cluster.yaml", "namespaced.yaml"
"""The two shapes: one that may hit pods of every namespace, one that may in a single one."""
TEMPLATES = (CLUSTER, NAMESPACED, f"{OPT_IN}{CLUSTER}", f"{OPT_IN}{NAMESPACED}")

PAUSE_OPTION = "--pause-image="
_LEASE = re.compile(r"(--lease-seconds=)[\d.]+")


class Source(Protocol):
    """Where manifests come from."""

    def template(self, name: str) -> str:
        """Read one file of manifests with placeholders."""

    def definitions(self) -> list[Object]:
        """Give the definition of every kind."""


class Packaged:
    """The manifests that came with this version."""

    def template(self, name: str) -> str:
        """Read one file."""
        return files("squall.installation").joinpath("manifests", name).read_text()

    def definitions(self) -> list[Object]:
        """Make them from the models."""
        return definitions()


def objects(settings: Settings, source: Source | None = None) -> list[Object]:
    """Give every object of an installation, in the order in which they are put in.

    Args:
        settings: what was chosen.
        source: where the manifests are; those of this version, unless given.
    """
    source = source or Packaged()
    shape = NAMESPACED if settings.policy.target_namespace else CLUSTER
    found = {_key(obj): obj for obj in _parsed(source.template(shape))}
    if settings.policy.opt_in_namespaces:
        found |= {_key(obj): obj for obj in _parsed(source.template(f"{OPT_IN}{shape}"))}
    filled_in = filled(found.values(), settings)
    return _ordered([namespace_of(settings), *filled_in, *source.definitions()])


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


def filled(templates: Iterable[Object], settings: Settings) -> list[Object]:
    """Put what was chosen in the place of the placeholders.

    Args:
        templates: objects with placeholders.
        settings: what was chosen.
    """
    # A Service's name has at most 63 letters; the chart cuts it, too.
    webhook = f"{WEBHOOK}-{settings.namespace}"[:LONGEST_NAME].rstrip("-")
    words = {
        f"{WEBHOOK}-{NAMESPACE_PLACEHOLDER}": webhook,
        NAMESPACE_PLACEHOLDER: settings.namespace,
        TARGET_PLACEHOLDER: settings.policy.target_namespace,
        IMAGE_PLACEHOLDER: settings.image,
        PAUSE_PLACEHOLDER: settings.pause_image,
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

    found: list[Object] = [fill(one) for one in templates]
    for obj in found:
        if obj["kind"] == CONFIG_MAP.kind and obj["metadata"]["name"] == POLICY_CONFIG_MAP:
            obj["data"][POLICY_KEY] = policy
    return found


def images(found: Sequence[Object]) -> list[str]:
    """List every image that these objects name, each once: of containers, and in arguments."""
    containers = [
        container
        for obj in found
        if resource_of(obj).group == DEPLOYMENT.group
        for kind in ("initContainers", "containers")
        for container in obj["spec"]["template"]["spec"].get(kind, ())
    ]
    asked = (argument for container in containers for argument in container.get("args", ()))
    named = {container["image"] for container in containers}
    named |= {a.removeprefix(PAUSE_OPTION) for a in asked if a.startswith(PAUSE_OPTION)}
    return sorted(named)


def as_yaml(found: Sequence[Object]) -> str:
    """Write objects as `kubectl apply -f -` reads them."""
    return yaml.safe_dump_all(found, sort_keys=False, width=100, explicit_start=True)


def _parsed(text: str) -> list[Object]:
    return [obj for obj in yaml.safe_load_all(text) if obj is not None]


def _key(obj: Object) -> tuple[str, str, str]:
    metadata = obj["metadata"]
    return obj["kind"], metadata.get("namespace", ""), metadata["name"]


def _ordered(found: Sequence[Object]) -> list[Object]:
    return sorted(found, key=lambda obj: (rank_of(obj), obj["metadata"]["name"]))
