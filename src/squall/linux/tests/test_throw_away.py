import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from squall.linux import throw_away

TRIAL = """
import sys, time
from squall.linux.throw_away import folder
with folder() as path:
    (path / "socket").write_text("of a holder")
    print(path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def trial(temporary):
    """A trial of another process, and the folder that it uses."""
    command = [sys.executable, "-c", TRIAL]
    source = str(Path(throw_away.__file__).parents[2])
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": source},
    ) as process:
        yield process, Path(process.stdout.readline().decode().strip())
        process.kill()


def test_a_trial_that_was_killed_leaves_no_folder_once_another_begins(trial, temporary):
    process, left = trial
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (left / "socket").exists()
    with throw_away.folder() as folder:
        assert list(temporary.iterdir()) == [folder]
    assert list(temporary.iterdir()) == []


def test_the_folder_of_a_trial_that_goes_on_stays(trial):
    _, used = trial
    throw_away.sweep()
    assert (used / "socket").exists()


def test_folders_of_others_stay(temporary):
    theirs = temporary / "squall-theirs"
    theirs.mkdir()
    throw_away.sweep()
    assert theirs.exists()


def test_what_a_trial_removes_itself_is_no_error():
    with throw_away.folder() as folder:
        folder.rmdir()
