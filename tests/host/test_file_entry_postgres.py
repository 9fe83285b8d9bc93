"""A running PostgreSQL feels a filter, goes on when it is gone, and has lost nothing."""

import os
import pwd
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.entered import Faults, volume, wait

BIN = Path("/usr/lib/postgresql/15/bin")

pytestmark = [
    pytest.mark.host,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not (BIN / "initdb").exists(), reason="PostgreSQL 15 is not installed"),
]


class Server:
    """PostgreSQL in a mount namespace of its own."""

    def __init__(self, directory: Path) -> None:
        self.data, self.sockets = directory / "pg", directory
        self._user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        self.data.mkdir(mode=0o700)
        user = pwd.getpwnam("postgres")
        os.chown(self.data, user.pw_uid, user.pw_gid)
        os.chown(directory, user.pw_uid, user.pw_gid)
        self.run("initdb", "-D", self.data, "--data-checksums", "--auth=trust", "-N")
        options = ["-c", "listen_addresses=", "-k", directory, "-c", "wal_sync_method=fdatasync"]
        command = [*self._user, BIN / "postgres", "-D", self.data, *options]
        with (directory / "log").open("w") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation=private", *command], stdout=log, stderr=log
            )
        self.pid = self._process.pid
        ready = [BIN / "pg_isready", "-h", directory]
        wait(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0)

    def run(self, program, *arguments):
        """Run one of its programs as its user."""
        done = subprocess.run(
            [*self._user, BIN / program, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, query):
        return self.run("psql", "-h", self.sockets, "-At", "-c", query, "postgres").strip()

    def open_in_ours(self):
        """Descriptors of all its processes that are on a mount of ours."""
        mountinfo = Path(f"/proc/{self.pid}/mountinfo").read_text()
        ours = re.findall(r"^(\d+) .* - fuse.squall squall-files ", mountinfo, re.MULTILINE)
        if not ours:
            return 0
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        infos = [
            info for pid in (self.pid, *children) for info in Path(f"/proc/{pid}/fdinfo").iterdir()
        ]
        return sum(f"mnt_id:\t{ours[0]}\n" in info.read_text() for info in infos)

    def goes_on(self):
        """Wait until clients have written more."""
        count = "select count(*) from pgbench_history"
        before = int(self.ask(count))
        wait(lambda: int(self.ask(count)) > before, within=30)

    def stop(self):
        self.run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")
        self._process.wait()

    @contextmanager
    def load(self):
        """Four clients, until the block ends."""
        command = [
            *self._user,
            BIN / "pgbench",
            "-h",
            self.sockets,
            "-c",
            "4",
            "-T",
            "120",
            "postgres",
        ]
        clients = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield clients
        finally:
            clients.terminate()
            clients.communicate()


def test_it_goes_on(tmp_path, public_path):
    server = Server(public_path)
    try:
        server.run("pgbench", "-h", server.sockets, "-i", "-q", "postgres")
        held = Faults(server, tmp_path / "faults.files")
        with server.load() as clients:
            server.goes_on()
            for _ in range(2):
                assert held.set(volume(server.data, latency_us=200, methods=["write"]))["ok"] == {}
                entered = held.ask("state")["ok"]["entered"][str(server.data)]
                assert entered["left"] == {}
                assert server.open_in_ours() >= 10
                server.goes_on()
                assert held.ask("state")["ok"]["counters"]["test"]["delayed"] > 0
                held.set()
                assert server.open_in_ours() == 0
                server.goes_on()
            assert clients.poll() is None  # no client has seen an error
        held.ask("quit")
        held.close()
        accounts = server.ask("select sum(abalance) from pgbench_accounts")
        assert server.ask("select sum(delta) from pgbench_history") == accounts
    finally:
        server.stop()
    assert "Bad checksums:  0" in server.run("pg_checksums", "--check", "-D", server.data)
