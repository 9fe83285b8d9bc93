"""Targets that stand still in a frozen cgroup: they get their true files back when they go on."""

import os
import secrets
import signal
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from squall.linux import cgroups
from testbed.entered import NODE, volume, wait

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]


def points():
    """Where hierarchies with a freezer are: that of v1, that of v2, or both beside one another."""
    mounted = cgroups.mounts(Path("/proc/self/mountinfo").read_text())
    found = {name: mount.point for mount in mounted for name in mount.controllers}
    return {name: found[name] for name in ("freezer", cgroups.UNIFIED) if name in found}


class Freezer:
    """A cgroup of one program."""

    def __init__(self, pid, hierarchy):
        self._switch, self._stop, self._go = (
            ("freezer.state", "FROZEN", "THAWED") if hierarchy else ("cgroup.freeze", "1", "0")
        )
        self._folder = points()[hierarchy] / f"squall-test-{secrets.token_hex(4)}"
        self._folder.mkdir()
        (self._folder / "cgroup.procs").write_text(str(pid))

    @contextmanager
    def frozen(self):
        (self._folder / self._switch).write_text(self._stop)
        try:
            wait(self._stands)
            yield
        finally:
            (self._folder / self._switch).write_text(self._go)

    def _stands(self):
        if self._switch == "freezer.state":
            return (self._folder / self._switch).read_text().strip() == self._stop
        return "frozen 1" in (self._folder / "cgroup.events").read_text()

    def remove(self):
        self._folder.rmdir()


@pytest.fixture(params=points(), ids=lambda name: f"v{1 if name else 2}")
def program(request, programs):
    program = programs()
    freezer = Freezer(program.pid, request.param)
    (program.directory / "file").write_text("content")
    program.ask("held = os.open(d + 'file', os.O_RDWR)")
    program.freezer = freezer
    yield program
    program.end()
    wait(lambda: not Path(f"/proc/{program.pid}").exists())
    freezer.remove()


def slow(program):
    return volume(program.directory, methods=["read"], latency_us=1)


def restored(program):
    """Give its files back by hand; the exit status."""
    command = [NODE, "files-restore", "--pid", str(program.pid)]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode


def true_again(program):
    """Nothing of ours is there, and what was held open works."""
    wait(lambda: not program.mounts(), within=30)
    assert program.ask("os.pread(held, 7, 0)") == "b'content'"
    assert program.ask("os.fstat(held).st_dev") == str(program.directory.stat().st_dev)


def test_a_filter_that_is_to_end_waits_until_its_target_goes_on(program, faults):
    held = faults(program)
    assert "ok" in held.set(slow(program))
    with program.freezer.frozen():
        quitting = threading.Thread(target=held.ask, args=("quit",))
        quitting.start()
        quitting.join(1)
        assert quitting.is_alive()
        assert len(program.mounts()) == 1
    quitting.join(30)
    true_again(program)


@pytest.mark.parametrize("dies", ["filter", "guardian", "both"])
def test_whoever_dies_a_frozen_target_loses_no_file(program, faults, dies):
    held = faults(program)
    assert "ok" in held.set(slow(program))
    filter_, guardian = held.processes()
    with program.freezer.frozen():
        for pid in {"filter": [filter_], "guardian": [guardian]}.get(dies, [filter_, guardian]):
            os.kill(pid, signal.SIGKILL)
        threading.Event().wait(1)  # what they do at once has been done
        if dies == "both":
            assert restored(program) != 0
    if dies == "both":
        wait(lambda: restored(program) == 0)
    true_again(program)


def test_nothing_is_mounted_over_a_frozen_target(program, faults):
    held = faults(program)
    with program.freezer.frozen():
        refused = held.set(slow(program))
        assert refused["error"]["kind"] == "TryAgain"
        assert "stands still in a frozen cgroup" in refused["error"]["message"]
        assert not program.mounts()
    assert "ok" in held.set(slow(program))
    held.ask("quit")
    true_again(program)
