"""The runner of user-mode Linux: what it passes on, and that nothing outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed.uml.build import CONFIG, unset
from testbed.uml.run import NOT_STARTED, TIMED_OUT, run
from testbed.uml.run import _ends as ends

PATIENCE_SECONDS = 10
BUSY = "echo up; for one in 1 2 3; do sh -c 'while :; do :; done' & done; wait"


def booting(test):
    return pytest.mark.kernel(pytest.mark.timeout(120)(test))


def test_an_option_that_got_lost_is_told():
    text = CONFIG.read_text()
    assert unset(text, text) == []
    assert unset(text, text.replace("CONFIG_NET_SCH_NETEM=y", "")) == ["CONFIG_NET_SCH_NETEM=y"]


@booting
def test_output_streams_and_the_exit_status_are_passed_on(capfd):
    lines = "seq 20000; echo to you >&2; id -u; exit 7"
    assert run(("sh", "-c", lines), timeout_seconds=60) == 7
    out, err = capfd.readouterr()
    assert out.split() == [*map(str, range(1, 20001)), "0"]
    assert err == "to you\n"


@booting
@pytest.mark.parametrize(
    ("command", "status"),
    [(("sh", "-c", "kill -TERM $$"), 128 + signal.SIGTERM), (("no-such-command",), 127)],
)
def test_a_command_that_is_ended_or_missing_is_told_as_by_a_shell(command, status):
    assert run(command, timeout_seconds=60) == status


@booting
def test_a_machine_that_takes_too_long_is_killed():
    assert run(("sleep", "60"), timeout_seconds=4) == TIMED_OUT


@booting
def test_a_kernel_that_does_not_come_up_is_told(capfd):
    assert run(("true",), timeout_seconds=60, program=Path("/bin/false")) == NOT_STARTED
    assert "ended early" in capfd.readouterr().err


def test_a_machine_that_has_done_its_work_need_not_go_down_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("testbed.uml.run._DOWN_SECONDS", 0.1)
    with subprocess.Popen(["sleep", "60"]) as hanging:
        assert not ends(hanging, tmp_path / "status", 0.1)
        (tmp_path / "status").write_text("0")
        assert ends(hanging, tmp_path / "status", 60)
        assert hanging.poll() is None
        hanging.kill()


@booting
@pytest.mark.parametrize("victim", ["runner", "machine"])
def test_whoever_is_killed_no_process_of_the_guest_is_left(victim, tmp_path):
    command = (sys.executable, "-m", "testbed.uml.run", "sh", "-c", BUSY)
    place = {**os.environ, "TMPDIR": str(tmp_path)}  # who is killed leaves a folder behind
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=place) as runner:
        assert runner.stdout.readline() == b"up\n"
        namespace = namespace_below(runner.pid)
        machine = next(pid for pid in living(namespace) if number_inside(pid) == 1)
        assert len(living(namespace)) > 3
        os.kill(runner.pid if victim == "runner" else machine, signal.SIGKILL)
        until = time.monotonic() + PATIENCE_SECONDS
        while living(namespace) and time.monotonic() < until:
            signal.sigtimedwait([], 0.02)
        assert living(namespace) == []


def namespace_below(pid):
    """Find the PID namespace that some descendant of a process is in, and we are not."""
    [machine] = [child for child in descendants(pid) if namespace_of(child) != namespace_of("self")]
    return namespace_of(machine)


def descendants(pid):
    """List the children of a process and theirs, down to the first of another namespace."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield child
        if namespace_of(child) == namespace_of("self"):
            yield from descendants(child)


def living(namespace):
    """List the processes in a PID namespace, by their numbers here."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if namespace_of(entry.name) == namespace and state(entry.name) not in "ZX":
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def namespace_of(pid):
    return Path(f"/proc/{pid}/ns/pid").readlink()


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def number_inside(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("NSpid:")[2].splitlines()[0].split()[-1])
