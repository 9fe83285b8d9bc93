"""Containers of other runtimes on this host, shown as Pods: what to write, decided purely.

A Pod is named after its container, mangled to what Kubernetes allows. A label whose key and value
Kubernetes allows stays a label; one with an allowed key but another value, such as a path, becomes
an annotation; the rest is dropped. Deleting the Pod ends the container, as deleting a Pod does
anywhere; if its runtime starts it again, it gets a new Pod.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from signal import SIGKILL, SIGTERM

from squall.api.cluster import Object
from squall.kubernetes.embedded.pods_status import (
    Host,
    container_status,
    is_held_down,
    placed_status,
    timestamp,
)
from squall.node.sandboxes import HostContainer

MIRROR = "squall.dev/mirror"
"""Annotation of a Pod that shows a container of another runtime: which one."""
NAMESPACE = "default"

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_LONGEST = 52  # leaves room for a dash and ten digits of the id within 63


@dataclass(frozen=True, slots=True)
class Create:
    """Store a Pod for a container, then its status."""

    container: HostContainer
    pod: Object


@dataclass(frozen=True, slots=True)
class Report:
    """Write the status of a Pod."""

    pod: Object
    status: Object


@dataclass(frozen=True, slots=True)
class End:
    """Signal a container whose Pod is being deleted, or has been."""

    container: HostContainer
    number: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete the Pod of a container that is gone."""

    pod: Object


Order = Create | Report | End | Forget


@dataclass(frozen=True, slots=True)
class Asked:
    """When a container was sent SIGTERM."""

    started: int
    """Which incarnation, by the start time of its init process."""
    at: float
    """Unix time in seconds."""


def mirror(
    found: Sequence[HostContainer],
    stored: Sequence[Object],
    asked: Mapping[str, Asked],
    host: Host,
    now: float,
    *,
    taken: Collection[str] = (),
) -> list[Order]:
    """Say what makes the Pods show the containers that are there.

    Args:
        found: what runs now.
        stored: Pods with the annotation `MIRROR` on this host.
        asked: containers, by id, whose Pod is being deleted and that were told to end.
        host: where they run.
        now: Unix time in seconds.
        taken: names of other Pods in the same namespace.
    """
    running = {address(each): each for each in found}
    orders: list[Order] = []
    shown: set[str] = set()
    names = {*taken, *(pod["metadata"]["name"] for pod in stored)}
    for pod in stored:
        container = running.get(pod["metadata"]["annotations"][MIRROR])
        if container is None:
            orders.append(Forget(pod))
            continue
        shown.add(address(container))
        if "deletionTimestamp" in pod["metadata"]:
            orders += _ending(pod, container, asked.get(container.id), now)
            continue
        status = mirror_status(pod, container, host, now)
        if not status.items() <= (pod.get("status") or {}).items():
            orders.append(Report(pod, status))
    for key, container in running.items():
        if key not in shown:
            pod = mirror_pod(container, host, names)
            names.add(pod["metadata"]["name"])
            orders.append(Create(container, pod))
    return orders


def address(container: HostContainer) -> str:
    """Write a container id as the wire does."""
    return f"{container.runtime}://{container.id}"


def _ending(
    pod: Object, container: HostContainer, asked: Asked | None, now: float
) -> Sequence[Order]:
    grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
    if asked is None:
        return (End(container, SIGTERM if grace else SIGKILL),)
    if asked.started != container.started:
        return (Forget(pod),)  # it has ended, and its runtime has started it again
    return (End(container, SIGKILL),) if now >= asked.at + grace else ()


def mirror_pod(container: HostContainer, host: Host, names: Collection[str]) -> Object:
    """Write the Pod of a container, without its status."""
    labels, annotations = split_labels(container.labels)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(container, names),
            "namespace": NAMESPACE,
            "labels": labels,
            "annotations": annotations | {MIRROR: address(container)},
        },
        "spec": {
            "nodeName": host.name,
            "hostNetwork": container.host_network,
            "containers": [{"name": _mangled(container.name), "image": container.image or "?"}],
        },
    }


def mirror_status(pod: Object, container: HostContainer, host: Host, now: float) -> Object:
    """Write the status of the Pod of a running container."""
    stored = container_status(pod)
    state = {"running": {"startedAt": timestamp(container.at)}}
    again = bool(stored) and stored.get("state") != state
    status = {
        "name": pod["spec"]["containers"][0]["name"],
        "image": container.image or "?",
        "imageID": "",
        "containerID": address(container),
        "restartCount": stored.get("restartCount", 0) + (1 if again else 0),
        "ready": not is_held_down(pod),
        "started": True,
        "state": state,
        "lastState": {},
    }
    addresses = host.addresses if container.host_network else container.addresses
    return placed_status(pod, "Running", [status], addresses, host, now)


def pod_name(container: HostContainer, taken: Collection[str]) -> str:
    """Name a Pod after its container; with digits of its id where that name is taken."""
    name = _mangled(container.name)
    return name if name not in taken else f"{name}-{container.id[:10]}"


def _mangled(name: str) -> str:
    mangled = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:_LONGEST].strip("-")
    return mangled or "container"


def split_labels(labels: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Tell labels that Kubernetes allows from those that can only be annotations."""
    allowed = {key: value for key, value in labels.items() if _is_key(key)}
    kept = {key: value for key, value in allowed.items() if _VALUE.fullmatch(value)}
    return kept, {key: value for key, value in allowed.items() if key not in kept}


def _is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(_NAME.fullmatch(name)) and (not slash or bool(_PREFIX.fullmatch(prefix)))
