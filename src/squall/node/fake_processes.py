"""Containers in memory, for tests of whoever resolves targets."""

from collections.abc import Collection, Mapping


class FakeProcesses:
    """Runs containers: `running` gives (pid, start time) by container id."""

    def __init__(self, running: Mapping[str, tuple[int, int]] | None = None) -> None:
        self.running = dict(running or {})
        self.asked: list[frozenset[str]] = []
        """What was looked up, one entry for each look through the processes."""
        self.elsewhere: set[int] = set()
        """Processes that are in no cgroup of the pod that claims them."""

    def in_pod(self, pid: int, uids: Collection[str]) -> bool:
        """Say so of all but those that are elsewhere."""
        return pid not in self.elsewhere

    async def resolve(self, container_ids: Collection[str]) -> Mapping[str, tuple[int, int]]:
        """Find what runs."""
        self.asked.append(frozenset(container_ids))
        return {id_: self.running[id_] for id_ in container_ids if id_ in self.running}
