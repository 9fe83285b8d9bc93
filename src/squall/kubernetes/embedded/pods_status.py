"""What the status of a local Pod says: pure, in the words that a kubelet uses."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from squall.api.cluster import Object
from squall.node.sandboxes import Ended, Sandbox

HELD_DOWN = "squall.dev/held-down"
"""Annotation of a Pod; while it is `true` the Pod is not ready, as if its probes failed."""

IMAGE = "host"
"""Image of a container that runs the programs of this host."""

_LOST = 137  # what a kubelet says of a container whose end nobody saw


@dataclass(frozen=True, slots=True)
class Host:
    """This machine, as Pods name it."""

    name: str
    addresses: tuple[str, ...]
    """The first is `hostIP`."""


def timestamp(unix: float) -> str:
    """Write Unix seconds as the wire does: UTC, whole seconds."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_held_down(pod: Object) -> bool:
    """Has somebody asked that the Pod be not ready?"""
    annotations: Mapping[str, str] = pod["metadata"].get("annotations") or {}
    return annotations.get(HELD_DOWN) == "true"


def container_status(pod: Object) -> Mapping[str, Any]:
    """Read the stored status of the one container of a local Pod; empty before the first."""
    statuses: Sequence[Mapping[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or ()
    return statuses[0] if statuses else {}


def container_id(sandbox: Sandbox) -> str:
    """Write a container id as the wire does."""
    return f"squall://{sandbox.id}"


def local_status(
    pod: Object,
    containers: Sequence[Sandbox],
    addresses: Sequence[str],
    host: Host,
    now: float,
    *,
    restarts: bool,
) -> Object:
    """Write the status of a Pod of a local workload.

    Args:
        pod: as it is stored; its last status tells how often the container was restarted.
        containers: of this very Pod, the newest last; at least one.
        addresses: of the Pod.
        host: where it runs.
        now: Unix time in seconds.
        restarts: will a container that has ended be started again?
    """
    newest = containers[-1]
    stored = container_status(pod)
    was = stored.get("containerID", "")
    known = was == container_id(newest)
    count = stored.get("restartCount", 0) + (1 if was and not known else 0)
    last = stored.get("lastState", {}) if known else _last_state(stored, containers)
    runs = newest.ended is None
    state: Object = {"running": {"startedAt": timestamp(newest.at)}}
    if newest.ended:
        end = {"terminated": _terminated(newest, newest.ended)}
        if restarts:
            last, state = end, {"waiting": _backing_off(newest.ended)}
        else:
            state = end
    ready = runs and not is_held_down(pod)
    name = pod["spec"]["containers"][0]["name"]
    status = {
        "name": name,
        "image": IMAGE,
        "imageID": "",
        "containerID": container_id(newest),
        "restartCount": count,
        "ready": ready,
        "started": runs,
        "state": state,
        "lastState": last,
    }
    phase = "Running" if runs or restarts else _phase_at_end(newest.ended)
    return placed_status(pod, phase, [status], addresses, host, now)


def placed_status(
    pod: Object,
    phase: str,
    statuses: Sequence[Object],
    addresses: Sequence[str],
    host: Host,
    now: float,
) -> Object:
    """Put together the status of a Pod from the statuses of its containers.

    A condition keeps the moment of its last change as long as it does not change.
    """
    unready = [each["name"] for each in statuses if not each["ready"]]
    why = _why_unready(pod, phase, unready)
    conditions = [
        _condition("Initialized", "True"),
        _condition("Ready", "False" if unready else "True", *why),
        _condition("ContainersReady", "False" if unready else "True", *why),
        _condition("PodScheduled", "True"),
    ]
    stored: Mapping[str, Any] = pod.get("status") or {}
    before = {each["type"]: each for each in stored.get("conditions") or ()}
    for condition in conditions:
        was = before.get(condition["type"], {})
        unchanged = was.get("status") == condition["status"]
        condition["lastTransitionTime"] = was["lastTransitionTime"] if unchanged else timestamp(now)
    return {
        "phase": phase,
        "conditions": conditions,
        "hostIP": host.addresses[0],
        "hostIPs": [{"ip": address} for address in host.addresses],
        "podIP": addresses[0] if addresses else "",
        "podIPs": [{"ip": address} for address in addresses],
        "startTime": stored.get("startTime") or timestamp(now),
        "qosClass": "BestEffort",
        "containerStatuses": list(statuses),
    }


def _why_unready(pod: Object, phase: str, unready: Iterable[str]) -> tuple[str, ...]:
    names = " ".join(unready)
    if not names:
        return ()
    if is_held_down(pod):
        return "HeldDown", f"annotation {HELD_DOWN} holds the Pod down"
    if phase == "Succeeded":
        return ("PodCompleted",)
    return "ContainersNotReady", f"containers with unready status: [{names}]"


def _condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, Any]:
    condition: dict[str, Any] = {"type": kind, "status": status, "lastProbeTime": None}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def _last_state(stored: Mapping[str, Any], containers: Sequence[Sandbox]) -> Object:
    """Say how the container ended that the stored status calls the current one."""
    was = stored.get("containerID", "")
    if not was:
        return {}
    for sandbox in containers:
        if container_id(sandbox) == was and sandbox.ended:
            return {"terminated": _terminated(sandbox, sandbox.ended)}
    if "terminated" in stored.get("state", {}):
        return {"terminated": stored["state"]["terminated"]}
    if "waiting" in stored.get("state", {}):
        last: Object = stored.get("lastState", {})
        return last
    lost = {"exitCode": _LOST, "reason": "ContainerStatusUnknown", "containerID": was}
    return {"terminated": lost | {"message": "the container was gone when its node came back"}}


def _terminated(sandbox: Sandbox, ended: Ended) -> Object:
    reason = "Completed" if ended.status == 0 else "Error"
    if ended.oom_killed:
        reason = "OOMKilled"
    elif not sandbox.pid:
        reason = "StartError"
    terminated: Object = {
        "exitCode": ended.status,
        "reason": reason,
        "startedAt": timestamp(sandbox.at or ended.at),
        "finishedAt": timestamp(ended.at),
        "containerID": container_id(sandbox),
    }
    return terminated | ({"message": ended.message} if ended.message else {})


def _backing_off(ended: Ended) -> Object:
    message = ended.message or f"exit status {ended.status}"
    return {"reason": "CrashLoopBackOff", "message": f"restarting after: {message}"}


def _phase_at_end(ended: Ended | None) -> str:
    return "Succeeded" if ended and ended.status == 0 else "Failed"
