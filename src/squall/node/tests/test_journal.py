import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from squall.errors import TryAgain
from squall.node.journal import Journal, Noted, Touched
from squall.node.notes import LaneKey

KEY = LaneKey("PaintChaos", "default/web", "uid-web", "")
OTHER = KEY._replace(container="c" * 64)
TOUCHED = Touched(KEY, "a" * 64, 7, 99, host_network=False, sources=("x/.", "y/.Target"))
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOTED = Noted({"metadata": {"uid": "u", "name": "f"}, "spec": {}}, NOON, 1030.0, 3, "silence")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "journal.db"


@pytest.fixture
def journal(path):
    journal = Journal(path, "boot")
    yield journal
    journal.close()


def full(journal, is_full=True):
    """Let every write fail, as on a disk that is full."""
    journal._db.execute(f"PRAGMA query_only = {is_full}")


def reopened(journal, path, boot_id="boot"):
    journal.close()
    return Journal(path, boot_id)


def test_what_was_written_is_there_after_opening_again(journal, path):
    journal.note([NOTED])
    journal.intend([TOUCHED])
    journal.memory(KEY).keep("was", b"\x00before")
    again = reopened(journal, path)
    assert again.faults() == [NOTED]
    assert again.touched() == [TOUCHED]
    assert again.memory(KEY).recall("was") == b"\x00before"
    again.close()


def test_the_first_note_under_a_key_stays(journal):
    memory = journal.memory(KEY)
    assert memory.recall("k") is None
    assert memory.keep("k", b"first") == b"first"
    assert memory.keep("k", b"second") == b"first"


def test_notes_of_one_incarnation_say_nothing_about_another(journal):
    journal.memory(KEY).keep("k", b"mine")
    assert journal.memory(OTHER).recall("k") is None
    journal.intend([TOUCHED, replace(TOUCHED, key=OTHER)])
    journal.restored(OTHER)
    assert journal.touched() == [TOUCHED]
    assert journal.memory(KEY).recall("k") == b"mine"


def test_a_restored_target_leaves_no_notes(journal):
    journal.intend([TOUCHED])
    journal.memory(KEY).keep("k", b"v")
    journal.restored(KEY)
    assert journal.touched() == []
    assert journal.memory(KEY).recall("k") is None


def test_a_strike_is_begun_once(journal, path):
    assert journal.strike("u", "m")
    assert not journal.strike("u", "m")
    assert journal.strike("u", "other")
    assert journal.outcome("u", "m") is None
    journal.struck("u", "m", "nobody there")
    again = reopened(journal, path)
    assert not again.strike("u", "m")
    assert again.outcome("u", "m") == "nobody there"
    again.drop("u")
    assert again.strike("u", "m")
    again.close()


def test_after_a_reboot_deadlines_are_read_from_the_wall_again_and_the_rest_stays(journal, path):
    journal.note([NOTED])
    journal.intend([TOUCHED])
    again = reopened(journal, path, "another boot")
    assert again.faults() == [replace(NOTED, deadline_boot=None)]
    assert again.touched() == [TOUCHED]
    again.close()


HOLDER = """
import pathlib, sys
from squall.node.journal import Journal
Journal(pathlib.Path(sys.argv[1]), "boot")
"""


def test_a_journal_has_one_holder(journal, path):
    command = [sys.executable, "-c", HOLDER, str(path)]
    other = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert TryAgain.__name__ in other.stderr
    assert "held by a running agent" in other.stderr


WRITER = """
import pathlib, sys
from squall.node.journal import Journal
from squall.node.notes import LaneKey
journal = Journal(pathlib.Path(sys.argv[1]), "boot")
for number in range(10_000):
    journal.memory(LaneKey("k", "t", "u", "")).keep(str(number), b"v")
    print(number, flush=True)
"""


def test_what_was_kept_is_there_after_kill_9(path):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        for _ in range(20):
            last = writer.stdout.readline().strip()
        os.kill(writer.pid, signal.SIGKILL)
    journal = Journal(path, "boot")
    assert journal.memory(LaneKey("k", "t", "u", "")).recall(last) == b"v"
    journal.close()


def test_a_file_that_is_no_journal_is_moved_aside(path):
    path.parent.mkdir()
    path.write_bytes(b"something else " * 500)
    journal = Journal(path, "boot")
    assert journal.touched() == []
    assert journal.lost == path.with_suffix(".broken")
    assert journal.lost.read_bytes().startswith(b"something else")
    journal.close()


def test_a_file_that_cannot_be_opened_now_is_left_where_it_is(path):
    path.mkdir(parents=True)
    with pytest.raises(TryAgain, match="cannot be opened"):
        Journal(path, "boot")
    assert path.is_dir()


def test_a_full_disk_is_a_matter_of_trying_again(journal):
    full(journal)
    for write in (
        lambda: journal.note([NOTED]),
        lambda: journal.intend([TOUCHED]),
        lambda: journal.restored(KEY),
        lambda: journal.drop("u"),
        lambda: journal.strike("f", "m"),
        lambda: journal.struck("f", "m"),
        lambda: journal.memory(KEY).keep("k", b"v"),
    ):
        with pytest.raises(TryAgain, match="cannot be written"):
            write()
    full(journal, False)
    journal.intend([TOUCHED])
    assert journal.touched() == [TOUCHED]
    assert journal.strike("f", "m"), "one that could not be marked has not begun"
