"""Is the controller that holds the lease still there? Told by its pod, without any clock.

Clocks of nodes differ and are stepped, so nothing here compares moments: a holder has ended when
its container is not the one that was seen running since it took the lease.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from squall.api.cluster import Object
from squall.orchestration.experiments.pods import Container, Pod

CONTAINER = "controller"
"""Name of the container that runs the controller, where a pod has several."""


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a controller's process, as the API shows it."""

    pod_uid: str
    container_id: str


def life_of(pod: Pod | None) -> Life | None:
    """Say which life of a controller a pod shows; None when none runs in it."""
    container = _container(pod.containers) if pod else None
    if pod is None or container is None or not container.running:
        return None
    return Life(pod.uid, container.container_id)


def ended(life: Life, pod: Pod | None) -> str:
    """Say how a life has ended, by what the API shows now; empty while it goes on.

    Args:
        life: as it was seen before.
        pod: the pod of that name now; None when there is none.
    """
    if pod is None:
        return "its pod is gone"
    if pod.uid != life.pod_uid:
        return "there is another pod of its name"
    container = _container(pod.containers)
    if container is None or not container.running:
        return "its container does not run"
    if container.container_id != life.container_id:
        return "its container was started again"
    return ""


class Tenure:
    """Follows who holds the lease, and the life in which it was taken."""

    def __init__(self) -> None:
        self._taken: tuple[str, str] | None = None
        self._life: Life | None = None
        self._former: Life | None = None
        """Of the same holder, before it came back: the API may still show it for a moment."""

    def ended(self, lease: Object, pod: Pod | None) -> str:
        """Say how the holder's life has ended; empty while it goes on, or nobody can tell.

        Args:
            lease: as it is now; a holder that came back and took it again has a new tenure.
            pod: the holder's, as it is now; None where there is none or none is known.
        """
        spec = lease.get("spec") or {}
        taken = (spec.get("holderIdentity") or "", spec.get("acquireTime") or "")
        if taken != self._taken:
            same = self._taken is not None and self._taken[0] == taken[0]
            self._former = self._life if same else None
            self._taken, self._life = taken, None
        if self._life is None:
            life = life_of(pod)
            self._life = life if life != self._former else None
            return ""
        return ended(self._life, pod)


def _container(containers: Sequence[Container]) -> Container | None:
    named = next((one for one in containers if one.name == CONTAINER), None)
    return named or next(iter(containers), None)
