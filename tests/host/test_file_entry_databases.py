"""Databases that run go on through a filter's coming and going, and lose nothing."""

import shutil
import subprocess

import pytest

from testbed.entered import volume, wait

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

WRITER = """
def write():
  global rows, failed
  con = sqlite3.connect(d + 'db', timeout=30, isolation_level=None)
  while going:
    try:
      con.execute('insert into t values (?)', (rows,)); rows += 1
    except sqlite3.Error as error:
      failed.append(str(error))
"""


def test_sqlite_with_its_log_and_its_shared_memory(programs, faults):
    program = programs()
    program.ask("con = sqlite3.connect(d + 'db', isolation_level=None, check_same_thread=False)")
    program.ask("con.execute('pragma journal_mode=wal').fetchall()")
    program.ask("con.execute('pragma mmap_size=1000000').fetchall()")
    program.ask("con.execute('create table t (n)').fetchall()")
    program.ask("going, rows, failed = True, 0, []")
    program.ask(WRITER.strip())
    program.ask("t = threading.Thread(target=write); t.start()")
    held = faults(program)
    for _ in range(3):
        assert held.set(volume(program.directory, latency_us=100, methods=["write"]))["ok"] == {}
        entered = held.ask("state")["ok"]["entered"][str(program.directory)]
        assert entered["left"] == {}
        assert entered["descriptors"] >= 3
        assert held.set()["ok"] == {}
        assert program.mounts() == []
    held.set(volume(program.directory, errno=28, methods=["write"], percent=100))
    wait(lambda: program.ask("len(failed) > 0") == "True")
    held.ask("quit")
    program.ask("before = rows")
    wait(lambda: program.ask("rows > before + 5") == "True")
    program.ask("going = False; t.join()")
    assert program.ask("con.execute('select count(*) from t').fetchall() == [(rows,)]") == "True"
    assert program.ask("con.execute('pragma integrity_check').fetchall()") == "[('ok',)]"
    other = subprocess.run(
        ["sqlite3", str(program.directory / "db"), "pragma integrity_check"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == "ok"


@pytest.mark.skipif(not shutil.which("sqlite3"), reason="sqlite3 is not installed")
def test_a_lock_of_a_database_holds_against_others_in_the_container(programs, faults):
    program = programs()
    program.ask("con = sqlite3.connect(d + 'db', isolation_level=None)")
    program.ask("con.execute('create table t (n)').fetchall()")
    program.ask("con.execute('begin exclusive').fetchall()")
    held = faults(program)
    locked = "subprocess.run(['sqlite3', d + 'db', 'insert into t values (1)']).returncode"
    assert program.ask(locked) == "5"
    held.set(volume(program.directory, latency_us=100, methods=["read"]))
    assert program.ask(locked) == "5"
    held.ask("quit")
    assert program.ask(locked) == "5"
    program.ask("con.execute('commit').fetchall()")
    assert program.ask(locked) == "0"
