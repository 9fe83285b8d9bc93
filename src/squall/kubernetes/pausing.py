"""What is written into a pod that shall stand still, and how it is read back from there; pure."""

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any

from squall.api.cluster import Object
from squall.api.metadata import PAUSED_WITH, STATIC, STOPPED
from squall.errors import TryAgain, Unsupported
from squall.injection.world.target import Target

_OURS = "chaos-mesh-squall-pod-failure-"
_FOREIGN = ("-normal-image", "-init-image")
_LONGEST_KEY = 63


def stopping(target: Target, pod: Object, pause_image: str) -> dict[str, Any] | None:
    """Write what makes a pod stand still; None where it does already.

    Raises:
        Unsupported: it could not be undone.
        TryAgain: Chaos Mesh holds the pod.
    """
    notes, spec = _notes(pod), pod["spec"]
    if why := _why_not(pod):
        raise Unsupported(f"{target.id} {why}")
    if held := next((key for key in notes if _is_foreign(key)), ""):
        raise TryAgain(f"{target.id}: Chaos Mesh holds the pod down ({held}); waiting for it")
    pause = notes.get(PAUSED_WITH) or pause_image
    kept: dict[str, str | None] = {PAUSED_WITH: pause}
    for container, key in _replaced(spec):
        # An image that is not ours was set by its owner, before the fault or during it.
        if key not in notes or container.get("image") != pause:
            kept[key] = container.get("image", "")
    if notes.items() >= kept.items() and is_marked(pod):
        return None
    return _patch(spec, {STOPPED: "true"}, kept, lambda _container, _key: pause)


def letting_go(_: Target, pod: Object) -> dict[str, Any] | None:
    """Write what gives a pod its images back; None where there is nothing of ours."""
    notes = _notes(pod)
    ours = [key for key in notes if key.startswith(_OURS) or key == PAUSED_WITH]
    if not ours and not is_marked(pod):
        return None
    pause = notes.get(PAUSED_WITH)

    def image(container: Mapping[str, Any], key: str) -> str:
        current = str(container.get("image", ""))
        return notes.get(key, current) if current == pause else current

    return _patch(pod["spec"], {STOPPED: None}, dict.fromkeys(ours), image)


def _patch(
    spec: Mapping[str, Any],
    labels: Mapping[str, str | None],
    notes: Mapping[str, str | None],
    image: Callable[[Mapping[str, Any], str], str],
) -> dict[str, Any]:
    """Write both lists whole, as a merge patch must; all but images is as it was read."""
    keys = {container["name"]: key for container, key in _replaced(spec)}
    return {
        "metadata": {"labels": dict(labels), "annotations": dict(notes)},
        "spec": {
            kind: [
                one | {"image": image(one, keys[one["name"]])} if one["name"] in keys else one
                for one in spec[kind]
            ]
            for kind in ("initContainers", "containers")
            if spec.get(kind)
        },
    }


def _replaced(spec: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Give the containers that stand still in a stopped pod, each with the key of its image.

    Init containers that have ended are left out: nobody would feel it, and one that had to run
    again with the pause image would never end, nor would a kubelet replace it
    (pkg/kubelet/kuberuntime/kuberuntime_container.go, computeInitContainerActions).
    """
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            yield container, image_key(container["name"], "init")
    for container in spec.get("containers") or ():
        yield container, image_key(container["name"], "normal")


def image_key(container: str, sort: str) -> str:
    """Name the annotation that keeps a container's image.

    Upstream's has the name of the experiment where ours has `squall`: any number of experiments
    share the first image. A name that would be too long is replaced by its digest.
    """
    room = _LONGEST_KEY - len(f"{_OURS}-{sort}-image")
    name = container if len(container) <= room else sha256(container.encode()).hexdigest()[:room]
    return f"{_OURS}{name}-{sort}-image"


def _is_foreign(key: str) -> bool:
    return key.startswith("chaos-mesh-") and key.endswith(_FOREIGN) and not key.startswith(_OURS)


def _why_not(pod: Object) -> str:
    if STATIC in _notes(pod):
        return "is a static pod: its containers are what a file on its node says, not the API"
    if pod["spec"].get("restartPolicy") == "Never":
        return (
            "has restartPolicy Never: what its containers were doing would be lost, and one that "
            "cannot run the pause image would end the pod for good"
        )
    return ""


def stopped(pod: Object) -> bool | None:
    """Say whether a pod stands still; None while its node has not done it yet."""
    pause = _notes(pod).get(PAUSED_WITH)
    if pause is None or not is_marked(pod):
        return False
    status = pod.get("status") or {}
    said = {
        one["name"]: one
        for kind in ("initContainerStatuses", "containerStatuses")
        for one in status.get(kind) or ()
    }
    answered_all = True
    for container, _ in _replaced(pod["spec"]):
        if container.get("image") != pause:
            return False
        one = said.get(container["name"])
        answered_all = answered_all and one is not None and _stands(one, pause)
    return True if answered_all else None


def _stands(status: Mapping[str, Any], pause: str) -> bool:
    """Does nothing of a container run, or only the pause image, as a runtime names it?"""
    if "running" not in (status.get("state") or {}):
        return bool(status.get("state"))
    if "@" in pause:
        return pause.partition("@")[2] in str(status.get("imageID", ""))
    name = pause if ":" in pause.rpartition("/")[2] else f"{pause}:latest"
    said = str(status.get("image", ""))
    return said in {name, pause} or said.endswith(f"/{name}")


def _notes(pod: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = pod["metadata"].get("annotations") or {}
    return found


def version(pod: Object) -> int:
    """Give its resourceVersion (versions are numbers: KEP-5504)."""
    return int(pod["metadata"]["resourceVersion"])


def is_marked(pod: Object) -> bool:
    """Does it carry our label?"""
    return (pod["metadata"].get("labels") or {}).get(STOPPED) == "true"
