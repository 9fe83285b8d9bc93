"""Locks on files under a fault: kept against whoever has the files open, also without the fault."""

import errno
import fcntl
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.entered import volume, wait

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

OURS = {"latency_us": 100, "methods": ["read"]}
FAMILIES = ("process", "open file", "whole")
TAKE = """
def take(fd, family, kind, wait=False):
    try:
        if family == "whole":
            fcntl.flock(fd, {"w": 2, "r": 1, "u": 8}[kind] | (0 if wait else 4))
        else:
            command = {"process": (6, 7), "open file": (37, 38)}[family][wait]
            kind = {"r": 0, "w": 1, "u": 2}[kind]
            fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, 0, 0, 0, 0))
    except OSError as error:
        return error.errno
    return 0
"""
HOLD = f"""
import fcntl, os, struct, sys, time
{TAKE}
take(os.open(sys.argv[1], os.O_RDWR), "process", "w", True)
print("has", flush=True)
time.sleep(60)
"""


class Outsider:
    """Who has the file open in another mount namespace: this process."""

    def __init__(self, path: Path) -> None:
        names = {"fcntl": fcntl, "struct": struct}
        exec(TAKE, names)  # noqa: S102  (the same as in the program)
        self._take, self._fd = names["take"], os.open(path, os.O_RDWR)

    def take(self, family: str, kind: str) -> int:
        return self._take(self._fd, family, kind)

    def end(self) -> None:
        os.close(self._fd)


@pytest.fixture
def program(programs):
    made = programs()
    made.ask(TAKE)
    made.ask("a = os.open(d + 'a', os.O_RDWR | os.O_CREAT)")
    return made


@pytest.fixture
def outsider(program):
    made = Outsider(program.directory / "a")
    yield made
    made.end()


def by_kernel(program):
    return volume(program.directory, path=f"{program.directory}/none/*", **OURS)


def waits(program):
    """Does anybody wait for a lock of its file?"""
    number = f":{(program.directory / 'a').stat().st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and number in line for line in lines)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lock_is_met_by_others_before_during_and_after_a_fault(program, outsider, faults, family):
    def take(kind: str) -> int:
        return int(program.ask(f"take(a, {family!r}, {kind!r})"))

    taken = errno.EAGAIN
    assert take("w") == 0
    held = faults(program)
    for one in (volume(program.directory, **OURS), by_kernel(program)):
        held.set(one)
        assert (outsider.take(family, "w"), outsider.take(family, "r")) == (taken, taken)
        assert take("u") == outsider.take(family, "w") == 0
        assert (take("w"), take("r")) == (taken, taken)
        assert outsider.take(family, "u") == take("r") == outsider.take(family, "r") == 0
        if family != "whole":  # flock(2): a conversion that fails loses what there was
            assert (outsider.take(family, "w"), take("w")) == (taken, taken)
        assert outsider.take(family, "u") == take("w") == 0
    held.ask("quit")
    assert outsider.take(family, "r") == taken
    assert take("u") == outsider.take(family, "w") == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lock_is_waited_for_while_a_fault_comes_and_goes(program, outsider, faults, family):
    held = faults(program)
    assert outsider.take(family, "w") == 0
    program.say(f"take(a, {family!r}, 'w', True)")
    wait(lambda: waits(program))
    held.set(volume(program.directory, **OURS))
    wait(lambda: waits(program))
    held.ask("set", volumes=[], lease=30, deadline=None)
    assert not program.mounts()
    wait(lambda: waits(program))
    held.set(volume(program.directory, **OURS))
    wait(lambda: waits(program))
    assert outsider.take(family, "u") == 0
    assert program.hear() == "0"
    assert outsider.take(family, "r") == errno.EAGAIN


def test_a_wait_ends_with_a_signal_and_with_its_process(program, outsider, faults):
    held = faults(program)
    held.set(volume(program.directory, **OURS))
    assert outsider.take("process", "w") == 0
    program.ask("def stop(*_): raise InterruptedError(4, '')")
    program.ask("signal.signal(signal.SIGALRM, stop)")
    program.say("take(a, 'process', 'w', True)")
    wait(lambda: waits(program))
    os.kill(program.pid, signal.SIGALRM)
    assert program.hear() == str(errno.EINTR)
    assert not waits(program)
    program.say("take(a, 'whole', 'w', True)")
    assert program.hear() == "0"
    program.say("take(a, 'process', 'w', True)")
    wait(lambda: waits(program))
    os.kill(program.pid, signal.SIGKILL)
    wait(lambda: not waits(program))
    wait(lambda: outsider.take("whole", "w") == 0)


def test_what_was_locked_is_free_when_it_is_closed(program, outsider, faults):
    held = faults(program)
    held.set(volume(program.directory, **OURS))
    program.ask("b = os.open(d + 'a', os.O_RDONLY)")
    for family in FAMILIES:
        assert program.ask(f"take(a, {family!r}, 'w')") == ("0" if family != "open file" else "11")
    program.ask("os.close(b)")  # fcntl(2): the process loses what it had, by whatever descriptor
    assert outsider.take("process", "w") == outsider.take("process", "u") == 0
    assert outsider.take("whole", "w") == errno.EAGAIN
    assert program.ask("take(a, 'open file', 'w')") == "0"
    program.ask("c = os.dup(a); os.close(a)")
    assert outsider.take("process", "w") == outsider.take("whole", "w") == errno.EAGAIN
    program.ask("os.close(c)")
    wait(lambda: outsider.take("process", "w") == 0)
    wait(lambda: outsider.take("whole", "w") == 0)


def test_a_lock_goes_with_its_process_and_is_told_by_its_number(
    program, outsider, faults, tmp_path
):
    (tmp_path / "hold.py").write_text(HOLD)
    held = faults(program)
    held.set(volume(program.directory, **OURS))
    program.ask(f"p = subprocess.Popen([sys.executable, '{tmp_path}/hold.py', d + 'a'], stdout=-1)")
    program.ask("p.stdout.readline()")
    asked = "struct.unpack('hhqqi4x', fcntl.fcntl(a, 5, struct.pack('hhqqi4x', 1, 0, 0, 0, 0)))"
    assert program.ask(f"{asked} == (1, 0, 0, 0, p.pid)") == "True"
    assert outsider.take("process", "w") == errno.EAGAIN
    program.ask("p.kill(); p.wait()")
    assert outsider.take("process", "w") == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lock_outlives_the_filter(program, outsider, faults, family):
    assert program.ask(f"take(a, {family!r}, 'w')") == "0"
    held = faults(program)
    held.set(volume(program.directory, **OURS))
    filter_pid = held.processes()[0]
    os.kill(filter_pid, signal.SIGKILL)

    def free() -> bool:
        # flock(2) knows no way to change the owner of a lock without a moment in which it has none.
        assert family == "whole" or outsider.take(family, "w") == errno.EAGAIN
        return not program.mounts()

    wait(free)
    wait(lambda: not held.processes())
    assert outsider.take(family, "r") == errno.EAGAIN
    assert program.ask(f"take(a, {family!r}, 'u')") == "0"
    assert outsider.take(family, "w") == 0


def test_rights_of_a_descriptor_are_those_of_its_locks(program, outsider, faults):
    held = faults(program)
    program.ask("r = os.open(d + 'a', os.O_RDONLY); w = os.open(d + 'a', os.O_WRONLY)")
    for each in (volume(program.directory, **OURS), by_kernel(program)):
        held.set(each)
        assert program.ask("take(r, 'process', 'w')") == str(errno.EBADF)
        assert program.ask("take(w, 'process', 'r')") == str(errno.EBADF)
        assert program.ask("take(r, 'process', 'r')") == "0"
        assert outsider.take("process", "w") == errno.EAGAIN
        assert program.ask("take(w, 'process', 'w')") == "0"  # the same process: it has more now
        assert outsider.take("process", "r") == errno.EAGAIN
        assert program.ask("take(r, 'process', 'u')") == "0"
        assert outsider.take("process", "w") == outsider.take("process", "u") == 0


def test_other_bytes_of_a_file_are_free(program, faults):
    held = faults(program)
    held.set(volume(program.directory, **OURS))
    program.ask("fcntl.lockf(a, fcntl.LOCK_EX, 10, 5)")
    other = (
        "import fcntl, os, sys; a = os.open(sys.argv[1], os.O_RDWR);"
        "fcntl.lockf(a, fcntl.LOCK_EX | fcntl.LOCK_NB, int(sys.argv[2]), int(sys.argv[3]))"
    )

    def takes(length: int, start: int) -> bool:
        command = [sys.executable, "-c", other, program.directory / "a", str(length), str(start)]
        done = subprocess.run(command, capture_output=True, check=False)
        return done.returncode == 0

    assert [takes(5, 0), takes(6, 0), takes(0, 15), takes(0, 14)] == [True, False, True, False]
    program.ask("fcntl.lockf(a, fcntl.LOCK_UN, 4, 5)")
    held.ask("quit")
    assert [takes(9, 0), takes(10, 0)] == [True, False]


def test_rules_act_on_locks(program, outsider, faults):
    held = faults(program)
    held.set(volume(program.directory, errno=errno.ENOLCK, methods=["setlk"]))
    for family in FAMILIES:
        assert program.ask(f"take(a, {family!r}, 'w')") == str(errno.ENOLCK)
        assert program.ask(f"take(a, {family!r}, 'u')") == "0"
    held.set(volume(program.directory, latency_us=200_000, methods=["setlk"]))
    assert outsider.take("process", "w") == 0
    program.say("take(a, 'process', 'w', True)")
    wait(lambda: waits(program))
    assert outsider.take("process", "u") == 0
    assert program.hear() == "0"
    timed = "t = time.monotonic(); take(a, 'whole', 'w'); t = time.monotonic() - t"
    program.ask(timed)
    assert program.ask("t >= 0.2") == "True"
    assert outsider.take("whole", "w") == errno.EAGAIN
