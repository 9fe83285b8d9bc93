"""What several files of host tests share."""

import tempfile
from pathlib import Path

import pytest

from testbed.entered import Faults, Program


@pytest.fixture
def public_path():
    """A directory that other users may reach, as `tmp_path` is not."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def programs(tmp_path):
    """Start programs over one directory; they are killed in the end."""
    running = []
    data = tmp_path / "data"
    data.mkdir()

    def start(directory=data, **how):
        running.append(Program(directory, **how))
        return running[-1]

    yield start
    for program in running:
        program.end()


@pytest.fixture
def faults(tmp_path, programs):
    """Start processes that hold faults; they end with the programs."""
    started = []

    def start(program, **how):
        started.append(Faults(program, tmp_path / f"{len(started)}.files", **how))
        return started[-1]

    yield start
    for held in started:
        held.close()
