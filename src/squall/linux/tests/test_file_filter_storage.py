"""Full disks and lost power, and databases that live on the filter."""

import errno
import mmap
import os
import random
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.filters import Filter, until

pytestmark = pytest.mark.host

POSTGRES = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"


@pytest.fixture
def filtered(tmp_path: Path) -> Iterator[Filter]:
    """The filter over a directory that everybody may enter."""
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(directory.stat().st_mode | 0o111)
    with Filter.over(tmp_path) as filtered:
        yield filtered


def test_space_ends_after_so_many_bytes_and_comes_back(filtered, tmp_path):
    (tmp_path / "old").write_bytes(bytes(5000))
    filtered.set({"source": "full", "space": 10_000})
    assert os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize <= 10_000
    fd = os.open(tmp_path / "new", os.O_RDWR | os.O_CREAT)
    assert os.pwrite(fd, bytes(8000), 0) == 8000
    assert os.pwrite(fd, bytes(8000), 4000) == 6000  # 4000 of them are there already
    with pytest.raises(OSError, match="No space left"):
        os.pwrite(fd, b"x", 10_000)
    assert os.pwrite(fd, b"x", 9_999) == 1
    with pytest.raises(OSError, match="No space left"):
        os.posix_fallocate(fd, 0, 20_000)
    with (tmp_path / "old").open("r+b", buffering=0) as old:
        assert old.write(bytes(5000)) == 5000
    os.ftruncate(fd, 6000)
    assert os.pwrite(fd, bytes(8000), 6000) == 4000
    os.close(fd)
    assert filtered.counters("full")["failed"] == 2
    (tmp_path / "new").unlink()
    (tmp_path / "again").write_bytes(bytes(10_000))
    filtered.set()
    (tmp_path / "again").write_bytes(bytes(20_000))


def test_power_takes_exactly_what_was_not_synced(filtered, tmp_path):
    """A log says what was written and what was synced; files must be as it says."""
    filtered.set({"source": "dark", "power_loss": True})
    chance = random.Random(5)  # noqa: S311 - to be repeated
    files = {name: os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in "abc"}
    now = {name: bytearray() for name in files}
    durable = dict.fromkeys(files, b"")
    for step in range(600):
        name = chance.choice("abc")
        fd, content = files[name], now[name]
        at, data = chance.randrange(60_000), bytes([step % 255 + 1]) * chance.randrange(1, 9000)
        kind = chance.randrange(12)
        if kind == 0:
            os.fsync(fd)
            durable[name] = bytes(content)
        elif kind == 1:
            os.ftruncate(fd, at)
            content[at:] = b""
            content.extend(bytes(at - len(content)))
        elif kind == 2 and content:
            with mmap.mmap(fd, len(content)) as mapped:
                at = min(at, len(content) - 1)
                end = min(at + len(data), len(content))
                mapped[at:end] = content[at:end] = data[: end - at]
        elif kind == 3 and step % 4 == 0:
            lost = filtered.lose()["dark"]
            assert lost > 0 or all(now[each] == durable[each] for each in files)
            now = {each: bytearray(content) for each, content in durable.items()}
            for each in files:
                assert (tmp_path / each).read_bytes() == durable[each], f"step {step}, {each}"
        else:
            content.extend(bytes(max(0, at - len(content))))
            content[at : at + len(data)] = data
            os.pwrite(fd, data, at)
    for fd in files.values():
        os.close(fd)
    filtered.lose()
    for name, content in durable.items():
        assert (tmp_path / name).read_bytes() == content
    assert filtered.counters("dark")["lost_bytes"] > 0


def test_without_a_loss_the_rule_costs_nothing_even_if_the_filter_dies(tmp_path):
    with Filter.over(tmp_path) as filtered:
        filtered.set({"source": "dark", "power_loss": True})
        (tmp_path / "a").write_bytes(b"never synced")
        filtered.process.kill()
        filtered.process.wait()
        with pytest.raises(OSError, match="not connected"):
            (tmp_path / "a").read_bytes()
        subprocess.run(("umount", tmp_path), check=True)
        assert (tmp_path / "a").read_bytes() == b"never synced"


def test_synchronous_writes_are_not_lost_and_their_neighbours_are(filtered, tmp_path):
    filtered.set({"source": "dark", "path": "/**/a", "power_loss": True})
    lazy = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    eager = os.open(tmp_path / "a", os.O_RDWR | os.O_DSYNC)
    os.pwrite(lazy, b"-" * 30, 0)
    os.pwrite(eager, b"synced", 10)
    (tmp_path / "b").write_bytes(b"not concerned")
    assert filtered.lose() == {"dark": 24}
    assert (tmp_path / "a").read_bytes() == bytes(10) + b"synced"
    assert (tmp_path / "b").read_bytes() == b"not concerned"
    os.close(lazy)
    os.close(eager)


def test_a_single_write_may_be_synchronous(filtered, tmp_path):
    filtered.set({"source": "dark", "power_loss": True})
    fd = os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT)
    os.pwritev(fd, [b"synced"], 0, os.RWF_DSYNC)
    os.pwritev(fd, [b"lost"], 6)
    filtered.lose()
    assert (tmp_path / "a").read_bytes() == b"synced"
    os.close(fd)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_sqlite_loses_no_committed_row_with_the_power(filtered, tmp_path, mode):
    filtered.set({"source": "dark", "power_loss": True})
    database = sqlite3.connect(tmp_path / "db", isolation_level=None)
    database.execute(f"pragma journal_mode={mode}")
    database.execute("pragma synchronous=full")
    database.execute("create table t(n integer primary key, filling blob)")
    for number in range(100):
        database.execute("insert into t values(?, randomblob(3000))", (number,))
    child = os.fork()  # it dies with what it has begun, as its host would
    if not child:
        own = sqlite3.connect(tmp_path / "db", isolation_level=None)
        own.execute("begin immediate")
        own.execute("update t set filling = zeroblob(9000)")
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    if mode == "delete":
        filtered.lose()
    del database
    again = sqlite3.connect(tmp_path / "db")
    assert again.execute("pragma integrity_check").fetchone() == ("ok",)
    assert again.execute("select count(*), max(length(filling)) from t").fetchone() == (100, 3000)
    again.close()


def as_postgres(*command: object, check: bool = True) -> str:
    done = subprocess.run(
        ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        cwd="/",
    )
    assert not (check and done.returncode), f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def ask(at: Path, text: str, *, check: bool = True) -> str:
    how = ("-X", "-A", "-t", "-h", at, "-d", "postgres", "-c", text)
    return as_postgres(POSTGRES / "psql", *how, check=check).strip()


@pytest.mark.timeout(120)
@pytest.mark.skipif(not POSTGRES.exists(), reason="PostgreSQL 15 is not installed")
def test_postgres_feels_the_faults_and_its_data_stay_whole(filtered, tmp_path):
    shutil.chown(tmp_path, USER, USER)
    data = tmp_path / "data"
    as_postgres(POSTGRES / "initdb", "--data-checksums", "--auth=trust", "-D", data)
    options = f"-c listen_addresses= -c unix_socket_directories={tmp_path} -c shared_buffers=8MB"
    control = (POSTGRES / "pg_ctl", "-D", data, "-w", "-l", tmp_path / "log")
    as_postgres(*control, "-o", options, "start")
    try:
        ask(
            tmp_path,
            "create table t as select n, repeat('x', 500) filling from generate_series(1, 20000) n",
        )
        ask(tmp_path, "checkpoint")
        filtered.set(
            {"source": "slow", "path": "/**/pg_wal/*", "methods": ["fsync"], "latency_us": 300_000}
        )
        start = time.monotonic()
        ask(tmp_path, "insert into t values(0, 'slow')")
        assert time.monotonic() - start >= 0.3
        assert filtered.counters("slow")["delayed"] > 0
        filtered.set(
            {
                "source": "broken",
                "path": "/**/base/*/[0-9]*",
                "methods": ["read"],
                "errno": errno.EIO,
            }
        )
        told = ask(tmp_path, "select sum(length(filling)) from t", check=False)
        until(lambda: filtered.counters("broken")["failed"] > 0)
        assert "Input/output error" in told
        filtered.set({"source": "dark", "power_loss": True})
        as_postgres(*control, "-m", "immediate", "stop")
        as_postgres(*control, "-o", options, "start")  # what it opens now is filtered
        ask(tmp_path, "insert into t select n, 'committed' from generate_series(30001, 31000) n")
        as_postgres(*control, "-m", "immediate", "stop")
        assert filtered.lose()["dark"] > 0
        filtered.set()
        as_postgres(*control, "-o", options, "start")
        assert ask(tmp_path, "select count(*) from t where filling = 'committed'") == "1000"
        assert ask(tmp_path, "select count(*) from t") == "21001"
    finally:
        as_postgres(*control, "-m", "fast", "stop", check=False)
    assert "Bad checksums:  0" in as_postgres(POSTGRES / "pg_checksums", "--check", "-D", data)
