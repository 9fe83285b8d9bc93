"""IOChaos on a database in a pod: its server says what it feels, and nothing that it held is lost.

The programs are those of the machine that the nodes run on, as a volume: in an image of their own
they would weigh more than all others together.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster.waiting import until
from testbed.images.build import TOOLS
from tests.cluster.installed import Installed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

BIN = "/usr/lib/postgresql/15/bin"
DATA = "/data/pg"
NOBODY = 65534
"""Its server refuses to run as root."""
SLOW_MS = 300
SERVE = f"""
{BIN}/initdb --data-checksums --no-sync --auth=trust -D {DATA} >/dev/null
{BIN}/postgres -D {DATA} -k /tmp -c listen_addresses= -c shared_buffers=1MB \
    -c max_connections=10 -c track_wal_io_timing=on -c log_min_duration_statement={SLOW_MS - 50}
exec sleep infinity
"""
MAKE = "create table book as select n, repeat('x', 500) line from generate_series(1, 20000) n"
INSERT = "insert into book select n, repeat('y', 500) from generate_series(1, 100) n"


def pod(namespace: str) -> dict[str, Any]:
    """Describe a pod with a server on a volume of its own."""
    mounts = [
        {"name": "data", "mountPath": "/data"},
        {"name": "programs", "mountPath": "/usr", "readOnly": True},
    ]
    main = {"name": "main", "image": TOOLS, "command": ["sh", "-c", SERVE], "volumeMounts": mounts}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client", "namespace": namespace, "labels": {"app": "client"}},
        "spec": {
            "nodeName": "node2",
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": NOBODY, "runAsGroup": NOBODY},
            "containers": [main],
            "volumes": [
                {"name": "data", "emptyDir": {}},
                {"name": "programs", "hostPath": {"path": "/usr", "type": "Directory"}},
            ],
        },
    }


class Server:
    """PostgreSQL in a pod, asked by kubectl alone."""

    def __init__(self, installed: Installed, namespace: str) -> None:
        self._installed, self._namespace = installed, namespace

    def run(self, program: str, *arguments: str) -> str:
        """Run one of its programs beside it; raises `RuntimeError` with its complaint."""
        command = (f"{BIN}/{program}", *arguments)
        return self._installed.run(self._namespace, "client", *command).strip()

    def sql(self, *statements: str) -> str:
        """Have it do something, each in a transaction of its own."""
        each = [f"--command={statement}" for statement in statements]
        return self.run("psql", "-h", "/tmp", "-Atq", "-v", "ON_ERROR_STOP=1", "postgres", *each)

    def waited_ms(self) -> float:
        """Say how long it has waited for its log to be on disk."""
        return float(self.sql("select wal_sync_time from pg_stat_wal"))

    def says(self, pattern: str) -> None:
        """Find it in its log, which the node writes down a moment after it was said."""
        log = ("logs", "client", f"-n={self._namespace}")
        until(pattern, lambda: re.search(pattern, self._installed.kubectl(*log)), 30)


@pytest.fixture
def server(installed: Installed, namespace: str) -> Server:
    if not Path(BIN, "postgres").exists():
        pytest.fail("PostgreSQL 15 is not installed (Debian: apt install postgresql-15)")
    installed.pods(namespace, pod(namespace))
    server = Server(installed, namespace)
    until("PostgreSQL", lambda: server.sql("select 1") == "1")
    server.sql(MAKE, "create index on book (n)", "checkpoint")
    return server


def test_its_server_feels_latency_and_errors_and_has_lost_nothing(
    installed: Installed, namespace: str, server: Server
) -> None:
    table = server.sql("select pg_relation_filepath('book')")
    slow = {"action": "latency", "delay": f"{SLOW_MS}ms", "methods": ["fsync"]}
    broken = {"action": "fault", "errno": 5, "methods": ["read"]}
    with installed.leaves_nothing(namespace):
        with installed.experiment(
            "IOChaos", namespace, {**slow, "volumePath": DATA, "path": f"{DATA}/pg_wal/*"}
        ) as latency:
            latency.wait("AllInjected")
            server.sql("select pg_stat_reset_shared('wal')", INSERT)
            server.says(r"duration: \d+\.\d+ ms  statement: insert")
            until("its statistics, a second old at most", lambda: server.waited_ms() >= SLOW_MS)
            latency.confirmed()
            with installed.experiment(
                "IOChaos", namespace, {**broken, "volumePath": DATA, "path": f"{DATA}/{table}*"}
            ) as fault:
                fault.wait("AllInjected")
                with pytest.raises(RuntimeError, match="could not read block"):
                    server.sql("select count(line) from book")
                server.says("Input/output error")
                fault.confirmed()
        assert server.sql("select count(line) from book") == "20100"
    server.run("pg_amcheck", "-h", "/tmp", "--install-missing", "--heapallindexed", "postgres")
    server.run("pg_ctl", "-D", DATA, "-m", "immediate", "stop")
    server.run("pg_ctl", "-D", DATA, "-l", "/dev/null", "-o", "-k /tmp", "start")
    assert server.sql("select count(line) from book") == "20100"
    server.run("pg_ctl", "-D", DATA, "stop")
    assert "Bad checksums:  0" in server.run("pg_checksums", "--check", "-D", DATA)
