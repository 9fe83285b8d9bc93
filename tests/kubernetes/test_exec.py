"""Commands inside pods, through the client and through kubectl, against the embedded API.

A real API server would pass them on to a kubelet, which these tests have none of.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator

import pytest

from squall.api.cluster import POD, ApiError, NotFound
from squall.kubernetes.client import HttpCluster
from squall.kubernetes.connection import Connection
from squall.kubernetes.exec import Streams, run_in_pod
from squall.kubernetes.kubeconfig import load
from testbed.apiserver import ApiServer


class Output:
    """Collects what a command says."""

    def __init__(self) -> None:
        self.said, self.complained = bytearray(), bytearray()

    def streams(self, stdin: AsyncIterator[bytes] | None = None) -> Streams:
        return Streams(self.said.extend, self.complained.extend, stdin)


@pytest.fixture
async def connection(embedded: ApiServer) -> AsyncIterator[Connection]:
    async with Connection(load(embedded.kubeconfig)) as connection:
        yield connection


@pytest.fixture
async def pod(embedded: ApiServer) -> AsyncIterator[str]:
    containers = [{"name": "main", "image": "host"}]
    made = {
        "metadata": {"generateName": "exec-", "namespace": "default"},
        "spec": {"containers": containers},
    }
    async with HttpCluster.from_kubeconfig(embedded.kubeconfig) as cluster:
        name = (await cluster.create(POD, made))["metadata"]["name"]
        yield name
        await cluster.delete(POD, "default", name, grace_seconds=0)


async def test_a_command_s_output_and_status_come_back(connection: Connection, pod: str):
    output = Output()
    code = await run_in_pod(connection, "default", pod, ["hello", "there"], output.streams())
    assert (code, bytes(output.said), bytes(output.complained)) == (0, b"hello there\n", b"")


async def test_a_failing_command_s_status_and_complaint_come_back(connection: Connection, pod: str):
    output = Output()
    command = ["fail", "3", "no such thing"]
    code = await run_in_pod(connection, "default", pod, command, output.streams())
    assert (code, bytes(output.said), bytes(output.complained)) == (3, b"", b"no such thing")


async def test_input_of_any_length_goes_through_and_ends(connection: Connection, pod: str):
    chunk = bytes(range(256)) * 128

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(96):
            yield chunk

    output = Output()
    code = await run_in_pod(connection, "default", pod, ["cat"], output.streams(chunks()))
    assert code == 0
    assert output.said == chunk * 96


async def test_input_that_never_ends_does_not_hold_a_command_that_does(
    connection: Connection, pod: str
):
    async def endless() -> AsyncIterator[bytes]:
        yield b"y\n"
        await asyncio.Event().wait()

    output = Output()
    code = await run_in_pod(connection, "default", pod, ["hello"], output.streams(endless()))
    assert (code, bytes(output.said)) == (0, b"hello\n")


async def test_a_command_in_no_pod_is_not_found(connection: Connection):
    with pytest.raises(NotFound):
        await run_in_pod(connection, "default", "none", ["hello"], Output().streams())


async def test_a_command_in_no_container_is_refused_by_its_name(connection: Connection, pod: str):
    with pytest.raises(ApiError, match="container none is not valid"):
        await run_in_pod(
            connection, "default", pod, ["hello"], Output().streams(), container="none"
        )


async def test_a_refused_command_says_why(embedded: ApiServer, connection: Connection):
    containers = [{"name": "silent", "image": "host"}]
    made = {
        "metadata": {"name": "silent", "namespace": "default"},
        "spec": {"containers": containers},
    }
    async with HttpCluster.from_kubeconfig(embedded.kubeconfig) as cluster:
        await cluster.create(POD, made)
        with pytest.raises(ApiError, match="container silent does not run"):
            await run_in_pod(connection, "default", "silent", ["hello"], Output().streams())
        await cluster.delete(POD, "default", "silent", grace_seconds=0)


def kubectl(server: ApiServer, *words: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    command = [server.kubectl, f"--kubeconfig={server.kubeconfig}", *words]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=20, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.kubernetes
async def test_kubectl_runs_commands_and_reads_logs(embedded: ApiServer, pod: str):
    assert kubectl(embedded, "exec", pod, "--", "hello")[:2] == (0, b"hello\n")
    code, said, complained = kubectl(embedded, "exec", pod, "--", "fail", "4", "oh no")
    assert (code, said) == (4, b"")
    assert complained.startswith(b"oh no")
    assert kubectl(embedded, "exec", "-i", pod, "--", "cat", stdin=b"octets")[1] == b"octets"
    assert kubectl(embedded, "logs", pod)[1] == b"one\ntwo\nthree\n"
    assert kubectl(embedded, "logs", pod, "--tail=1")[1] == b"three\n"
