"""The agent on the nodes of a real cluster: what it opens, where it stands, what it leaves."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster.waiting import until
from tests.cluster.charts import NAMESPACE
from tests.cluster.installed import LEASE_SECONDS, PATIENCE_SECONDS, Installed, pod

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

LISTENS = "0A"
"""State of a socket in /proc/net/tcp; include/net/tcp_states.h."""
MOST_KIB = 60 * 1024
CUT = {"action": "partition", "direction": "to", "externalTargets": ["192.0.2.9"]}


@pytest.fixture(scope="module")
def installed(fresh: Installed) -> Installed:
    """One whose agents may be killed, and whose memory is that of a new one."""
    return fresh


@pytest.fixture
def client(installed: Installed, namespace: str) -> str:
    """A pod to hit; gives the node it is on."""
    node = agents(installed)[0]["spec"]["nodeName"]
    installed.pods(namespace, pod(namespace, "client", node))
    return str(node)


def agents(installed: Installed) -> list[Any]:
    """List the pods of agents, by node."""
    found = installed.read("pods", "--selector=app.kubernetes.io/component=agent", NAMESPACE)
    return sorted(found["items"], key=lambda one: one["spec"]["nodeName"])


def agent_on(installed: Installed, node: str) -> Any:
    [found] = [one for one in agents(installed) if one["spec"]["nodeName"] == node]
    return found


def pid_of(installed: Installed, node: str) -> int:
    """Find the `squall agent` of a node by the id of its container."""
    [status] = agent_on(installed, node)["status"]["containerStatuses"]
    return next(pid for pid in in_container(status["containerID"]) if "agent" in command(pid))


def in_container(container_id: str) -> Iterator[int]:
    bare = container_id.partition("://")[2]
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):
            if bare in path.read_text():
                yield int(path.parent.name)


def command(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


def holders_of(installed: Installed, namespace: str) -> list[int]:
    """Find what holds the network faults of the client, by the process they were told."""
    pids = installed.cluster.processes_of(namespace, "client")
    told = {f"/proc/{pid}/ns/net" for pid in pids}
    numbers = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in numbers if "packets" in command(pid) and told & set(command(pid))]


def watchers_of(agent: int) -> list[int]:
    numbers = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [
        pid
        for pid in numbers
        if "watch" in command(pid) and ["--pid", str(agent)] == command(pid)[2:4]
    ]


def files(installed: Installed, node: str) -> list[str]:
    """List the files of an agent on its node, as hostPath has them."""
    folder = installed.cluster.on_host(node, Path("/var/lib/squall", f"{node}.squall"))
    return sorted(path.name for path in folder.glob("*"))


def test_no_port_is_open_and_memory_is_small(installed: Installed) -> None:
    for agent in agents(installed):
        pid = pid_of(installed, agent["spec"]["nodeName"])
        for table in ("tcp", "tcp6", "udp", "udp6"):
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
            states = [line.split()[3] for line in lines]
            assert LISTENS not in states if table.startswith("tcp") else not states
        status = Path(f"/proc/{pid}/status").read_text()
        assert int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) <= MOST_KIB


def test_each_node_with_an_agent_has_a_lease_that_says_what_it_can_do(installed: Installed) -> None:
    for agent in agents(installed):
        node = agent["spec"]["nodeName"]
        lease = installed.read("lease", f"squall-agent-{node}", NAMESPACE)
        assert lease["spec"]["holderIdentity"] == node
        assert "missing" not in lease["metadata"]["annotations"]["squall.dev/abilities"]


def test_holders_stand_aside_and_outlive_a_kill_of_their_agent(
    installed: Installed, namespace: str, client: str
) -> None:
    with installed.experiment("NetworkChaos", namespace, CUT) as cut:
        cut.wait("AllInjected")
        holders = holders_of(installed, namespace)
        assert holders
        for holder in holders:
            assert "kubepods" not in Path(f"/proc/{holder}/cgroup").read_text()
        assert "journal.db" in files(installed, client)
        killed = pid_of(installed, client)
        os.kill(killed, signal.SIGKILL)
        until("its end", lambda: not command(killed), LEASE_SECONDS / 2)
        # Before the lease is over: kubelet may take longer to start another one, and then the
        # watcher takes the fault back.
        assert holders_of(installed, namespace) == holders
        until_another(installed, client, killed)
    until("the end of its holders", lambda: not holders_of(installed, namespace), 30)
    until("the end of its watcher", lambda: not watchers_of(killed), LEASE_SECONDS)


def test_an_agent_that_is_stopped_is_replaced_and_what_it_did_taken_back(
    installed: Installed, namespace: str, client: str
) -> None:
    with (
        installed.leaves_nothing(namespace),
        installed.experiment("NetworkChaos", namespace, CUT) as cut,
    ):
        cut.wait("AllInjected")
        stopped = pid_of(installed, client)
        os.kill(stopped, signal.SIGSTOP)
        until("the end of the stopped agent", lambda: not command(stopped), 4 * LEASE_SECONDS)
        until_another(installed, client, stopped)


def test_a_clean_end_leaves_no_watcher_no_lease_and_no_file(
    installed: Installed, namespace: str, client: str
) -> None:
    with installed.experiment("NetworkChaos", namespace, CUT) as cut:
        cut.wait("AllInjected")
    agent, pid = agent_on(installed, client), pid_of(installed, client)
    assert watchers_of(pid)
    daemons = ("daemonset/squall-agent", f"--namespace={NAMESPACE}")
    with sent_away(installed, daemons):
        name = f"pod/{agent['metadata']['name']}"
        installed.kubectl("wait", name, f"-n={NAMESPACE}", "--for=delete", "--timeout=60s")
        assert watchers_of(pid) == []
        with pytest.raises(RuntimeError, match="not found"):
            installed.read("lease", f"squall-agent-{client}", NAMESPACE)
        assert files(installed, client) == []
        with installed.experiment("NetworkChaos", namespace, CUT) as late:
            late.wait("Selected=False")
            assert f"no agent runs on node {client}" in str(late.read()["status"])
    installed.kubectl("rollout", "status", *daemons, "--timeout=120s")
    with installed.experiment("NetworkChaos", namespace, CUT) as cut:
        cut.wait("AllInjected")


@contextmanager
def sent_away(installed: Installed, daemons: tuple[str, str]) -> Iterator[None]:
    """Keep agents from coming back, so that what they leave can be seen."""

    def select(labels: dict[str, str] | None) -> None:
        patch = {"spec": {"template": {"spec": {"nodeSelector": labels}}}}
        installed.kubectl("patch", *daemons, "--type=merge", f"--patch={json.dumps(patch)}")

    select({"nobody": "here"})
    try:
        yield
    finally:
        select(None)


def until_another(installed: Installed, node: str, before: int) -> None:
    """Wait until another process acts on a node in place of one that ended."""

    def another() -> bool:
        try:
            return pid_of(installed, node) != before
        except StopIteration as none:
            raise RuntimeError("no agent runs") from none

    until("another agent", another, PATIENCE_SECONDS)
    installed.ready(NAMESPACE, agent_on(installed, node)["metadata"]["name"])
