"""IOChaos on databases as Debian ships them: they feel it, and lose nothing by it."""

import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from testbed.installation import (
    Installation,
    eventually,
    gone,
    injected,
    proven,
    ready_pod,
    resource_of,
)

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

POSTGRESQL = Path("/usr/lib/postgresql/15/bin")
SETTINGS = (
    *("-c", "listen_addresses=", "-c", "shared_buffers=1MB", "-c", "max_connections=10"),
    *("-c", "fsync=on", "-c", "log_min_messages=warning"),
)


@pytest.fixture
async def installation(tmp_path):
    with Installation(tmp_path / "squall", lease_seconds=5) as up:
        yield up
        assert up.alive, up.log
    assert "Traceback" not in up.log, up.log


@pytest.fixture
async def cluster(installation):
    async with installation.cluster() as cluster:
        yield cluster


def io(name, app, volume, **spec):
    return {
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "IOChaos",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "mode": "all",
            "selector": {"labelSelectors": {"app": app}},
            "volumePath": str(volume),
            **spec,
        },
    }


async def begun(cluster, experiment):
    created = await cluster.create(resource_of(experiment), experiment)
    await injected(cluster, created)
    return created


class PostgreSQL:
    """A server with page checksums, run as its own user."""

    def __init__(self, folder):
        self.data, self.sockets = folder / "data", folder / "sockets"
        owner = pwd.getpwnam("postgres")
        for directory in (folder, self.data, self.sockets):
            directory.mkdir(exist_ok=True)
            shutil.chown(directory, owner.pw_uid, owner.pw_gid)
        self._as = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--")
        self.run("initdb", "--data-checksums", "--no-sync", "--auth=trust", "-D", str(self.data))

    @property
    def command(self):
        return (
            *self._as,
            *(str(POSTGRESQL / "postgres"), "-D", str(self.data), "-k", str(self.sockets)),
            *SETTINGS,
        )

    def run(self, program, *arguments, check=True):
        """Run one of its programs as its user."""
        return subprocess.run(
            (*self._as, str(POSTGRESQL / program), *arguments),
            check=check,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    def recovered(self):
        """Have it see to what an end without notice has left; False while it still runs."""
        return self.run("postgres", "--single", "-D", str(self.data), check=False).returncode == 0

    def sql(self, statement, *, check=True):
        """Have it do something; gives what it says, and the seconds that took."""
        begun = time.perf_counter()
        where = ("-h", str(self.sockets), "-d", "postgres", "-Atq", "-v", "ON_ERROR_STOP=1")
        done = self.run("psql", *where, "-c", statement, check=check)
        return (done.stdout + done.stderr).strip(), time.perf_counter() - begun


@pytest.fixture
def folder():
    """A directory that others may enter, unlike those of the tests."""
    made = Path(tempfile.mkdtemp(prefix="squall-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def postgresql(installation, cluster, folder):
    if shutil.which("postgres", path=POSTGRESQL) is None:
        pytest.skip("PostgreSQL 15 is not installed (Debian: apt install postgresql-15)")
    server = PostgreSQL(folder / "pg")
    installation.squall("run", "--name", "pg", "--label", "app=pg", "--", *server.command)
    await ready_pod(cluster, "pg")
    await eventually(lambda: server.sql("select 1", check=False)[0] == "1", "PostgreSQL answers")
    server.sql(
        "create table book as select n, repeat('x', 500) as line from generate_series(1, 20000) n"
    )
    server.sql("checkpoint")
    return server


async def test_a_running_postgresql_feels_latency_and_errors_and_loses_nothing(
    installation, cluster, postgresql
):
    insert = "insert into book select n, 'y' from generate_series(1, 100) n"
    quick = min(postgresql.sql(insert)[1] for _ in range(3))
    # Every commit waits for its log to be on disk.
    slow = io(
        "slow", "pg", postgresql.data, action="latency", delay="300ms", methods=["fsync"],
        path=f"{postgresql.data}/pg_wal/*",
    )  # fmt: skip
    await begun(cluster, slow)
    assert postgresql.sql(insert)[1] >= quick + 0.25
    await proven(cluster, slow)
    # Beside it, what is not in memory cannot be read any more.
    file = postgresql.sql("select pg_relation_filepath('book')")[0]
    broken = io(
        "broken", "pg", postgresql.data, action="fault", errno=5, methods=["read"],
        path=f"{postgresql.data}/{file}*",
    )  # fmt: skip
    await begun(cluster, broken)
    said, _ = postgresql.sql("select count(line) from book", check=False)
    assert re.search("could not read block .*: Input/output error", said), said
    await gone(cluster, slow)
    await gone(cluster, broken)
    assert postgresql.sql("select count(line) from book")[0] == "20400"
    assert postgresql.sql(insert)[1] < 0.25
    installation.squall("delete", "workload", "pg")
    await eventually(postgresql.recovered, "it has ended, and recovers from that")
    checked = postgresql.run("pg_checksums", "--check", "-D", str(postgresql.data), check=False)
    assert "Bad checksums:  0" in checked.stdout, checked


class Etcd:
    """One member, with its data in a folder of its own."""

    def __init__(self, folder):
        self.data, self.url = folder / "data", "http://127.0.0.1:2379"
        self.log = folder / "log"

    @property
    def command(self):
        return ("etcd", "--data-dir", str(self.data), "--logger=zap", f"--log-outputs={self.log}")


def etcdctl(installation, *arguments, check=True):
    """Ask it from inside the target, where it listens."""
    done = installation.squall("exec", "etcd", "--", "etcdctl", *arguments, check=check)
    return (done.stdout + done.stderr).strip()


METRICS = "from urllib.request import urlopen as o; print(o('{url}/metrics').read().decode())"
SYNCED = re.compile(r"^etcd_disk_wal_fsync_duration_seconds_(sum|count) (\S+)$", re.MULTILINE)


def synced(installation, etcd):
    """Seconds that it has waited for its log to be on disk, and how often, as it counts itself."""
    asked = METRICS.format(url=etcd.url)
    said = installation.squall("exec", "etcd", "--", sys.executable, "-c", asked).stdout
    found = dict(SYNCED.findall(said))
    return float(found["sum"]), float(found["count"])


@pytest.fixture
async def etcd(installation, cluster, tmp_path):
    if shutil.which("etcdctl") is None:
        pytest.skip("etcdctl is not installed (Debian: apt install etcd-client)")
    server = Etcd(tmp_path)
    run = ("run", "--name", "etcd", "--label", "app=etcd", "--env", "ETCDCTL_API=3", "--")
    installation.squall(*run, *server.command)
    await ready_pod(cluster, "etcd")

    def healthy():
        return "is healthy" in etcdctl(installation, "endpoint", "health", check=False)

    await eventually(healthy, "etcd is healthy")
    return server


async def test_a_running_etcd_feels_latency_and_errors_and_loses_nothing(
    installation, cluster, etcd, tmp_path
):
    etcdctl(installation, "put", "early", "kept")
    slow = io("slow", "etcd", etcd.data, action="latency", delay="400ms", methods=["fsync"])
    await begun(cluster, slow)
    before = synced(installation, etcd)
    etcdctl(installation, "put", "slow", "1")
    seconds, times = (
        now - was for was, now in zip(before, synced(installation, etcd), strict=True)
    )
    assert times >= 1
    assert seconds >= 0.4 * times
    await proven(cluster, slow)
    await gone(cluster, slow)
    # A member that cannot write its log ends itself; what it had promised is there when it is back.
    broken = io("broken", "etcd", etcd.data, action="fault", errno=28, methods=["write"])
    await begun(cluster, broken)
    etcdctl(installation, "put", "--command-timeout=2s", "lost", "1", check=False)

    def told():
        return "no space left on device" in etcd.log.read_text()

    await eventually(told, "etcd has seen the error")
    await gone(cluster, broken)

    def back():
        return etcdctl(installation, "get", "slow", "--print-value-only", check=False) == "1"

    await eventually(back, "etcd is back with what it had", 30)
    saved = tmp_path / "snapshot"
    etcdctl(installation, "snapshot", "save", str(saved))
    status = etcdctl(installation, "snapshot", "status", str(saved))
    assert re.fullmatch(r"[0-9a-f]+, \d+, \d+, .*", status), status
    assert etcdctl(installation, "get", "early", "--print-value-only") == "kept"
