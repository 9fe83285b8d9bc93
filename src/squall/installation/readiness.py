"""Is an installation ready, and if not, what is in the way: pure, over objects as read."""

from collections.abc import Iterator, Sequence

from squall.api.cluster import Object
from squall.installation.resources import DEPLOYMENT, called, resource_of


def unready(workload: Object) -> str:
    """Say what a Deployment or DaemonSet still lacks; empty when all its pods are ready.

    Args:
        workload: as read from the API.
    """
    status, name = workload.get("status") or {}, workload["metadata"]["name"]
    resource = resource_of(workload)
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return f"{called(resource, name)}: the cluster has not looked at it yet"
    if resource == DEPLOYMENT:
        wanted = workload["spec"].get("replicas", 1)
        updated = min(status.get("updatedReplicas", 0), wanted)
        ready = min(status.get("availableReplicas", 0), updated)
        outdated = status.get("replicas", 0) > wanted
    else:
        wanted = status.get("desiredNumberScheduled", 0)
        updated = status.get("updatedNumberScheduled", 0)
        ready, outdated = min(status.get("numberAvailable", 0), updated), False
    if ready == wanted and not outdated:
        return ""
    return f"{called(resource, name)}: {ready} of {wanted} pods are ready"


def troubles(pods: Sequence[Object]) -> Iterator[str]:
    """Say of each pod that is not ready what is in its way, a line each.

    Args:
        pods: of the installation, as read from the API.
    """
    for pod in pods:
        status = pod.get("status") or {}
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        if conditions.get("Ready", {}).get("status") == "True":
            continue
        name, phase = pod["metadata"]["name"], status.get("phase", "Unknown")
        node = (pod.get("spec") or {}).get("nodeName")
        where = f"pod {name} ({phase}{f' on {node}' if node else ''})"
        reasons = [*_scheduling(conditions.get("PodScheduled")), *_containers(status)]
        yield f"{where}: {'; '.join(reasons) or 'is not ready yet'}"


def _scheduling(condition: Object | None) -> Iterator[str]:
    if condition and condition.get("status") == "False":
        yield condition.get("message") or condition.get("reason") or "no node takes it"


def _containers(status: Object) -> Iterator[str]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or ():
            state = container.get("state") or {}
            waiting = state.get("waiting")
            if waiting and waiting.get("reason") not in (None, "PodInitializing"):
                yield ": ".join(filter(None, (waiting["reason"], waiting.get("message"))))
            ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
            if ended and ended.get("exitCode"):
                # Kubernetes keeps the end of the log there for containers that ask for it.
                said = (ended.get("message") or "").strip().splitlines()[-1:]
                yield f"ended with status {ended['exitCode']}" + "".join(f": {s}" for s in said)
