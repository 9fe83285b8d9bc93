"""Containers of other runtimes: what /proc and a runtime's socket tell of them."""

import asyncio
import json
from contextlib import asynccontextmanager

from squall.linux.host_containers import LinuxHostContainers

A, B, OURS = "a1" * 32, "b2" * 32, "c3" * 32

TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 172.17.0.0/16 2 0 2
        |-- 172.17.0.2
           /32 host LOCAL
        |-- 172.17.255.255
           /32 link BROADCAST
Local:
        |-- 172.17.0.2
           /32 host LOCAL
"""
INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000042acfffe110002 02 40 20 80     eth0
fd000000000000000000000000000002 02 40 00 80     eth0
"""


def process(proc, pid, cgroup, network, ticks=500):
    directory = proc / str(pid)
    for part in ("ns", "net"):
        (directory / part).mkdir(parents=True)
    (directory / "cgroup").write_text(f"0::{cgroup}\n")
    (directory / "stat").write_text(f"{pid} (x) S 1 {' '.join(['0'] * 17)} {ticks} 0\n")
    (directory / "ns/net").symlink_to(network)
    (directory / "net/fib_trie").write_text(TRIE)
    (directory / "net/if_inet6").write_text(INET6)


def host(proc):
    (proc / "self/ns").mkdir(parents=True)
    (proc / "self/ns/net").symlink_to("net:[1]")
    (proc / "stat").write_text("cpu 0\nbtime 1700000000\n")


@asynccontextmanager
async def runtime(path, answer):
    """A runtime's socket; counts how often it was asked."""
    asked = []

    async def serve(reader, writer):
        asked.append(await reader.readline())
        body = answer.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield asked
    finally:
        server.close()
        await server.wait_closed()


async def test_a_container_has_addresses_and_a_start_without_any_socket(tmp_path):
    host(tmp_path)
    process(tmp_path, 10, f"/system.slice/docker-{A}.scope", "net:[2]")
    process(tmp_path, 11, f"/squall-0a1b2c3d/{OURS}", "net:[3]")
    (found,) = await LinuxHostContainers(tmp_path, list).list()
    assert (found.id, found.runtime, found.name, found.pid) == (A, "docker", A[:12], 10)
    assert found.addresses == ("172.17.0.2", "fd00::2")
    assert 1700000000 < found.at <= 1700000500
    assert not found.host_network


async def test_a_container_on_the_network_of_the_host_has_no_address_of_its_own(tmp_path):
    host(tmp_path)
    process(tmp_path, 10, f"/docker/{A}", "net:[1]")
    (found,) = await LinuxHostContainers(tmp_path, list).list()
    assert (found.host_network, found.addresses) == (True, ())


async def test_a_runtime_is_asked_only_when_a_container_is_new(tmp_path):
    proc, place = tmp_path / "proc", tmp_path / "docker.sock"
    host(proc)
    process(proc, 10, f"/docker/{A}", "net:[2]")
    told = [{"Id": A, "Names": ["/shop-web-1"], "Image": "nginx", "Labels": {"a": "b"}}]
    async with runtime(place, json.dumps(told)) as asked:
        containers = LinuxHostContainers(proc, lambda: [tmp_path / "absent.sock", place])
        for _ in range(3):
            (found,) = await containers.list()
        assert (found.name, found.image, found.labels) == ("shop-web-1", "nginx", {"a": "b"})
        assert len(asked) == 1
        process(proc, 20, f"/docker/{B}", "net:[2]")
        assert {each.name for each in await containers.list()} == {"shop-web-1", B[:12]}
        assert len(asked) == 2


async def test_a_runtime_that_answers_nonsense_is_left_out(tmp_path):
    proc, place = tmp_path / "proc", tmp_path / "docker.sock"
    host(proc)
    process(proc, 10, f"/docker/{A}", "net:[2]")
    for answer in ("no json", '{"message": "no"}'):
        async with runtime(place, answer):
            (found,) = await LinuxHostContainers(proc, lambda: [place]).list()
            assert found.name == A[:12]
        place.unlink(missing_ok=True)
