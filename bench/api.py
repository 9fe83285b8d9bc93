"""How fast the embedded API is, beside bare commits of SQLite in the same run.

    python bench/api.py [--rounds 300]

Everything runs in one event loop: server and client share it, so figures over HTTP hold both
sides. Exit status 1 when a write is not seen by a watcher of the same process within 2 ms (p50).
"""

import argparse
import os
import secrets
import sqlite3
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import httpx2
import uvloop

from squall.api.cluster import NODE_FAULT, Object
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.embedded.certificates import certificates
from squall.kubernetes.embedded.core_kinds import core_kinds
from squall.kubernetes.embedded.fake_runtime import FakeRuntime
from squall.kubernetes.embedded.kinds import Kinds
from squall.kubernetes.embedded.loopback import Loopback
from squall.kubernetes.embedded.objects import Objects
from squall.kubernetes.embedded.serve import Server
from squall.kubernetes.embedded.store import Store

SEEN_WITHIN_MS = 2.0
TOKEN = secrets.token_hex()
URL = "/apis/squall.dev/v1alpha1/namespaces/squall/nodefaults"
LISTED = 1000


def node_fault(name: str) -> Object:
    experiment = {"kind": "NetworkChaos", "namespace": "default", "name": "delay", "uid": "u"}
    return {
        "apiVersion": NODE_FAULT.api_version,
        "kind": NODE_FAULT.kind,
        "metadata": {"name": name, "namespace": "squall"},
        "spec": {
            "nodeName": "laptop",
            "experiment": {**experiment, "created": "2026-01-01T12:00:00Z"},
            "desiredPhase": "Run",
            "faults": {".": {"action": "delay", "latency": "10ms"}},
            "targets": [
                {"id": f"default/web-{n}", "selectorKey": ".", "podUid": "p"} for n in range(5)
            ],
        },
    }


def percentile(values: list[float], percent: float) -> float:
    return sorted(values)[min(int(len(values) * percent / 100), len(values) - 1)]


def bare_commits(folder: Path, rounds: int) -> list[float]:
    """What no store can beat that keeps its promise: one row, one synchronous commit."""
    database = sqlite3.connect(folder / "bare.db", isolation_level=None)
    database.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE rows (body BLOB);"
    )
    body, took = b"x" * 1000, []
    for _ in range(rounds):
        start = time.perf_counter()
        database.execute("INSERT INTO rows VALUES (?)", (body,))
        took.append((time.perf_counter() - start) * 1000)
    database.close()
    return took


async def timed(rounds: int, action: Callable[[int], Awaitable[object]]) -> list[float]:
    took = []
    for number in range(rounds):
        start = time.perf_counter()
        await action(number)
        took.append((time.perf_counter() - start) * 1000)
    return took


class Report:
    def __init__(self, commit_ms: float) -> None:
        self._commit = commit_ms
        self.missed = False

    def row(self, what: str, took: list[float], most_ms: float | None = None) -> None:
        p50, p99 = percentile(took, 50), percentile(took, 99)
        bound = f"p50 <= {most_ms:g} ms" if most_ms else ""
        holds = most_ms is None or p50 <= most_ms
        self.missed |= not holds
        ratio = f"{p50 / self._commit:6.1f} x a bare commit"
        state = ("ok" if holds else "MISSED") if most_ms else ""
        print(f"{what:<40} p50 {p50:7.3f}  p99 {p99:7.3f} ms {ratio}   {bound} {state}", flush=True)


async def measure(folder: Path, rounds: int) -> bool:
    store = Store(folder / "squall.db")
    objects = Objects(store, Kinds([*core_kinds(), *served_kinds(kinds())]))
    commits = bare_commits(folder, rounds)
    report = Report(percentile(commits, 50))
    report.row("bare SQLite commit, synchronous=FULL", commits)
    await in_process(Loopback(objects), rounds, report)
    pki = certificates(folder / "pki", ["127.0.0.1"])
    server = Server(objects, TOKEN, pki.server_context(), FakeRuntime())
    port = await server.start("127.0.0.1", 0)
    async with httpx2.AsyncClient(
        base_url=f"https://127.0.0.1:{port}",
        headers={"authorization": f"Bearer {TOKEN}"},
        verify=ssl.create_default_context(cafile=str(pki.authority)),
        trust_env=False,
    ) as client:
        await over_http(client, rounds, report)
    await server.stop()
    store.close()
    return report.missed


async def in_process(api: Loopback, rounds: int, report: Report) -> None:
    async def create(number: int) -> None:
        await api.create(NODE_FAULT, node_fault(f"a{number}"))

    async def patch(number: int) -> None:
        status = {"status": {"observedGeneration": number, "targets": []}}
        await api.patch(NODE_FAULT, "squall", "a0", status, subresource="status")

    report.row("create", await timed(rounds, create))
    report.row("patch of a status", await timed(rounds, patch))
    async with aclosing(api.watch(NODE_FAULT)) as events:
        for _ in range(rounds + 1):
            await anext(events)

        async def seen(number: int) -> None:
            await patch(rounds + number)
            await anext(events)

        report.row("write to event, same process", await timed(rounds, seen), SEEN_WITHIN_MS)


async def over_http(client: httpx2.AsyncClient, rounds: int, report: Report) -> None:
    headers = {"content-type": "application/merge-patch+json"}

    async def get(_: int) -> None:
        (await client.get(f"{URL}/a0")).raise_for_status()

    async def create(number: int) -> None:
        (await client.post(URL, json=node_fault(f"b{number}"))).raise_for_status()

    async def patch(number: int) -> None:
        content = b'{"metadata":{"labels":{"n":"%d"}}}' % number
        (await client.patch(f"{URL}/a0", content=content, headers=headers)).raise_for_status()

    report.row("GET over TLS", await timed(rounds, get))
    report.row("POST over TLS", await timed(rounds, create))
    report.row("PATCH over TLS", await timed(rounds, patch))
    async with client.stream("GET", URL, params={"watch": "true"}) as stream:
        lines = stream.aiter_lines()
        for _ in range(2 * rounds):
            await anext(lines)

        async def seen(number: int) -> None:
            await patch(rounds + number)
            await anext(lines)

        report.row("write to event, over TLS", await timed(rounds, seen))
    await timed(max(LISTED - 2 * rounds, 0), lambda n: create(rounds + n))

    async def listed(_: int) -> None:
        (await client.get(URL)).raise_for_status()

    report.row(f"list of {max(LISTED, 2 * rounds)} objects over TLS", await timed(20, listed))


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # a disk, as in use; not a tmpfs
        missed = uvloop.run(measure(Path(folder), rounds))
    print(f"resident at the end, client and benchmark included: {resident_mib():.0f} MiB")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
