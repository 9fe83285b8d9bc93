"""From a stored Pod to logs and commands."""

import pytest

from squall.api.cluster import ApiError
from squall.errors import TargetGone
from squall.kubernetes.embedded.pods_runtime import PodRuntime
from squall.kubernetes.embedded.pods_status import HELD_DOWN

A = "a" * 64


class FakeLogs:
    def __init__(self, **texts):
        self.texts = texts

    def read(self, id_, *, follow, tail_lines, limit_bytes):
        text = self.texts[id_]

        async def blocks():
            yield text

        return blocks()


class FakeProcesses:
    def __init__(self, **found):
        self.found = found

    async def resolve(self, container_ids):
        return {id_: self.found[id_] for id_ in container_ids if id_ in self.found}


class FakeCommands:
    def __init__(self):
        self.started = []
        self.gone = False

    async def start(self, pid, started, command, *, stdin, tty):
        if self.gone:
            raise TargetGone("process 7 has ended")
        self.started.append((pid, started, *command, stdin, tty))
        return "session"


def pod(container_id=f"squall://{A}", state="running"):
    status = {"name": "web", "containerID": container_id, "state": {state: {}}}
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "web"}]},
        "status": {"containerStatuses": [status]} if container_id else {},
    }


@pytest.fixture
def commands():
    return FakeCommands()


@pytest.fixture
def runtime(commands):
    return PodRuntime(FakeLogs(**{A: b"hello"}), FakeProcesses(**{A: (7, 9)}), commands)


def read(runtime, stored, container="web"):
    return runtime.logs(stored, container, follow=False, tail_lines=None, limit_bytes=None)


async def test_a_log_is_found_by_the_container_of_the_status(runtime):
    assert [block async for block in read(runtime, pod())] == [b"hello"]
    ended = pod(state="terminated")
    assert [block async for block in read(runtime, ended)] == [b"hello"]


@pytest.mark.parametrize(
    ("stored", "container", "reason"),
    [
        (pod(), "db", "container db is not valid for pod web"),
        (pod(""), "web", "waiting to start"),
        (pod(f"squall://{'b' * 64}"), "web", "log is gone"),
        (pod(f"docker://{A}"), "web", "docker logs aaaaaaaaaaaa"),
    ],
)
def test_a_log_that_cannot_be_read_is_refused_before_the_first_octet(
    runtime, stored, container, reason
):
    with pytest.raises(ApiError, match=reason) as refused:
        read(runtime, stored, container)
    assert refused.value.code == 400


@pytest.mark.parametrize("id_", [f"squall://{A}", f"docker://{A}"])
async def test_a_command_starts_beside_the_init_of_any_container(runtime, commands, id_):
    assert await runtime.start(pod(id_), "web", ["ls"], stdin=True, tty=False) == "session"
    assert commands.started == [(7, 9, "ls", True, False)]


@pytest.mark.parametrize("stored", [pod(state="terminated"), pod(""), pod(f"squall://{'b' * 64}")])
async def test_a_command_in_a_container_that_does_not_run_is_refused(runtime, stored):
    with pytest.raises(ApiError, match="container not found"):
        await runtime.start(stored, "web", ["ls"], stdin=False, tty=False)


async def test_a_command_in_a_pod_that_is_held_down_is_refused_instead_of_frozen(runtime, commands):
    stored = pod()
    stored["metadata"]["annotations"] = {HELD_DOWN: "true"}
    with pytest.raises(ApiError, match="stands still"):
        await runtime.start(stored, "web", ["ls"], stdin=False, tty=False)
    assert not commands.started


async def test_a_container_that_ends_meanwhile_is_refused(runtime, commands):
    commands.gone = True
    with pytest.raises(ApiError, match="just ended"):
        await runtime.start(pod(), "web", ["ls"], stdin=False, tty=False)
