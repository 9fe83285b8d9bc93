"""Logs of Pods and commands in them: from a stored Pod to its processes on this host."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from squall.api.cluster import ApiError, Object
from squall.errors import TargetGone
from squall.kubernetes.embedded.pods_status import is_held_down
from squall.kubernetes.embedded.runtime import Commands, Session
from squall.node.sandboxes import Logs
from squall.node.targets import Processes

_OURS = "squall"
_ID = re.compile(r"^([a-z0-9.-]+)://(.+)$")


class PodRuntime:
    """Implements `Runtime` for every container on this host, whoever runs it."""

    def __init__(self, logs: Logs, processes: Processes, commands: Commands) -> None:
        self._logs, self._processes, self._commands = logs, processes, commands

    def logs(
        self,
        pod: Object,
        container: str,
        *,
        follow: bool,
        tail_lines: int | None,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        """Read what a container of ours wrote; refuses before the first octet, not after."""
        runtime, id_ = _id(pod, container)
        if runtime != _OURS:
            message = f"{runtime} keeps the logs of its containers: {runtime} logs {id_[:12]}"
            raise _refused(pod, container, message)
        try:
            return self._logs.read(
                id_, follow=follow, tail_lines=tail_lines, limit_bytes=limit_bytes
            )
        except KeyError:
            raise _refused(pod, container, "its log is gone with its container") from None

    def check(self, pod: Object, container: str) -> None:
        """Refuse a container in which no command can be started."""
        if "running" not in _status(pod, container).get("state", {}):
            raise _refused(pod, container, "container not found (it does not run)")
        if is_held_down(pod):  # it would join the frozen cgroup, and its client wait
            message = "a PodChaos holds the Pod down: every process in it stands still"
            raise _refused(pod, container, message)

    async def start(
        self, pod: Object, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Session:
        """Start a command in a running container."""
        self.check(pod, container)
        _, id_ = _id(pod, container)
        found = await self._processes.resolve([id_])
        try:
            pid, started = found[id_]
            return await self._commands.start(pid, started, command, stdin=stdin, tty=tty)
        except (KeyError, TargetGone):
            message = "container not found (it has just ended)"
            raise _refused(pod, container, message) from None


def _status(pod: Object, container: str) -> Mapping[str, Any]:
    names = [each["name"] for each in pod["spec"]["containers"]]
    if container not in names:
        valid = f"container {container} is not valid for pod {pod['metadata']['name']}"
        raise ApiError(400, "BadRequest", f"{valid}; it has: {', '.join(names)}")
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((each for each in statuses if each["name"] == container), {})


def _id(pod: Object, container: str) -> tuple[str, str]:
    found = _ID.match(_status(pod, container).get("containerID", ""))
    if not found:
        raise _refused(pod, container, "it is waiting to start: ContainerCreating")
    return found[1], found[2]


def _refused(pod: Object, container: str, why: str) -> ApiError:
    name = pod["metadata"]["name"]
    return ApiError(400, "BadRequest", f'container "{container}" in pod "{name}": {why}')
