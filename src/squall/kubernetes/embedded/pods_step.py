"""Decide the next move of one local workload and its Pod: no clock, no I/O, no waiting."""

from collections.abc import Sequence
from dataclasses import dataclass
from signal import SIGTERM
from typing import Any

from squall.api.cluster import WORKLOAD, Object
from squall.kubernetes.embedded.pods_status import Host, container_id, container_status
from squall.node.sandboxes import PodName, Sandbox

GENERATION = "squall.dev/workload-generation"
"""Annotation of a Pod: which version of its Workload it was made from."""

_STEADY_SECONDS = 10.0  # a container that ran so long has not failed at its start
_DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
_LONGEST_SECONDS = 10.0  # a kubelet goes up to 300 s; here somebody sits in front of it


@dataclass(frozen=True, slots=True)
class Facts:
    """One workload, its Pod, and what runs of it."""

    name: PodName
    host: Host
    workload: Object | None = None
    pod: Object | None = None
    containers: Sequence[Sandbox] = ()
    """Of this name, whatever the uid of their Pod; the newest last."""
    attached: bool = False
    streak: int = 0
    """How many containers in a row had ended soon after their start before the newest one."""
    asked_to_end_at: float | None = None
    """Unix time at which the running container was sent SIGTERM."""


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Store a new Pod."""

    pod: Object


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete this very Pod."""

    uid: str
    now: bool
    """True: its containers are gone, so it need not stay; False: with its own grace period."""


@dataclass(frozen=True, slots=True)
class Attach:
    """Give the Pod its network."""


@dataclass(frozen=True, slots=True)
class Detach:
    """Take the network away."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container of the stored Pod."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask a container to end."""

    id: str
    number: int = SIGTERM


@dataclass(frozen=True, slots=True)
class Remove:
    """Kill a container if it runs, and forget it."""

    id: str


Move = CreatePod | DeletePod | Attach | Detach | Start | Terminate | Remove


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now; where nothing is to be done, when to look again."""

    moves: tuple[Move, ...] = ()
    """In this order; after them, look again at once."""
    report: bool = False
    """Write the Pod's status."""
    restarts: bool = False
    """Will an ended container be started again?"""
    wait_seconds: float | None = None
    """Until something is due; None: until something changes."""


def step(facts: Facts, now: float) -> Decision:
    """Say what one workload needs next.

    Args:
        facts: as read just now.
        now: Unix time in seconds.
    """
    pod = facts.pod
    uid = pod["metadata"]["uid"] if pod else ""
    strangers = tuple(Remove(each.id) for each in facts.containers if each.pod_uid != uid)
    if strangers:  # their Pod was deleted without grace, or while nobody looked
        return Decision(strangers)
    if pod is None:
        return _without_pod(facts)
    if "deletionTimestamp" in pod["metadata"]:
        return _ending(facts, pod, now)
    if not _is_current(facts.workload, pod):
        return Decision((DeletePod(uid, now=False),))
    return _keeping(facts, pod, now)


def _without_pod(facts: Facts) -> Decision:
    if facts.workload and _wants_pod(facts.workload):
        return Decision((CreatePod(new_pod(facts.workload, facts.host)),))
    if facts.attached:
        return Decision((Detach(),))
    return Decision()


def _ending(facts: Facts, pod: Object, now: float) -> Decision:
    """A Pod is being deleted: SIGTERM, grace, SIGKILL, gone."""
    grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
    running = [each for each in facts.containers if each.ended is None]
    if not running:
        removals = tuple(Remove(each.id) for each in facts.containers)
        if not grace and pod["metadata"].get("finalizers"):
            return Decision(removals)  # said already; it stays until whoever put them has let go
        return Decision((*removals, DeletePod(pod["metadata"]["uid"], now=True)))
    if grace and facts.asked_to_end_at is None:
        return Decision(tuple(Terminate(each.id) for each in running))
    left = (facts.asked_to_end_at or 0.0) + grace - now
    if grace and left > 0:
        return Decision(wait_seconds=left)
    return Decision(tuple(Remove(each.id) for each in running))


def _keeping(facts: Facts, pod: Object, now: float) -> Decision:
    """A Pod shall run: start it, start it again, tell how it stands."""
    if not facts.attached:
        return Decision((Attach(),))
    if not facts.containers:
        return Decision((Start(),))
    newest = facts.containers[-1]
    # An ended predecessor is kept until the status names its successor: it is the `lastState`.
    told = container_status(pod).get("containerID") == container_id(newest)
    past = tuple(Remove(each.id) for each in facts.containers[:-1]) if told else ()
    if newest.ended is None:
        return Decision(past, report=True)
    policy = pod["spec"].get("restartPolicy", "Always")
    restarts = policy == "Always" or (policy == "OnFailure" and newest.ended.status != 0)
    if not restarts:
        return Decision(past, report=True)
    due = newest.ended.at + back_off(next_streak(facts.streak, newest))
    if now >= due:
        # What has ended is told first where it would be forgotten: two ends without a status.
        return Decision((*past, Start()), report=not told, restarts=True)
    return Decision(past, report=True, restarts=True, wait_seconds=due - now)


def back_off(streak: int) -> float:
    """Say how many seconds to wait before a restart; the first one is at once.

    Args:
        streak: containers in a row that ended soon after their start, this one included.
    """
    return _DELAYS[streak - 1] if streak <= len(_DELAYS) else _LONGEST_SECONDS


def next_streak(streak: int, ended: Sandbox) -> int:
    """Count a container that has ended; a steady one begins a new streak."""
    steady = ended.ended is not None and ended.ended.at - ended.at >= _STEADY_SECONDS and ended.pid
    return 1 if steady else streak + 1


def new_pod(workload: Object, host: Host) -> Object:
    """Write the Pod of a workload, bound to this host."""
    metadata, spec = workload["metadata"], workload["spec"]
    container: dict[str, Any] = {
        "name": metadata["name"],
        "image": "host",
        "command": list(spec["command"]),
    }
    if env := spec.get("env"):
        container["env"] = [{"name": name, "value": value} for name, value in env.items()]
    owner = {
        "apiVersion": WORKLOAD.api_version,
        "kind": WORKLOAD.kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": dict(spec.get("labels") or {}),
            "annotations": {GENERATION: str(metadata.get("generation", 1))},
            "ownerReferences": [owner],
        },
        "spec": {
            "nodeName": host.name,
            "hostname": metadata["name"],
            "restartPolicy": spec.get("restartPolicy", "Always"),
            "terminationGracePeriodSeconds": 30,
            "containers": [container],
        },
    }


def _wants_pod(workload: Object) -> bool:
    return "deletionTimestamp" not in workload["metadata"]


def _is_current(workload: Object | None, pod: Object) -> bool:
    """Was the Pod made from the Workload as it is now?"""
    if workload is None or not _wants_pod(workload):
        return False
    owners = pod["metadata"].get("ownerReferences") or ()
    annotations = pod["metadata"].get("annotations") or {}
    generation = str(workload["metadata"].get("generation", 1))
    return annotations.get(GENERATION, generation) == generation and any(
        owner["uid"] == workload["metadata"]["uid"] for owner in owners
    )
