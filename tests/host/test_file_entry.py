"""A filter is put into running programs, and taken out of them, whoever dies."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from testbed.entered import NODE, volume, wait

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

LATENCY = {"latency_us": 50_000, "methods": ["read"]}


def test_open_files_feel_it_and_everything_is_as_before_afterwards(programs, faults):
    program = programs()
    program.ask("a = os.open(d + 'a', os.O_RDWR | os.O_CREAT); os.write(a, b'0123456789')")
    program.ask("os.chdir(d)")
    program.ask("m = mmap.mmap(a, 10)")
    before = program.picture()
    held = faults(program)
    assert held.set(volume(program.directory, **LATENCY)) == {"id": 1, "ok": {}}
    program.ask("t = time.monotonic(); r = os.pread(a, 3, 0); t = time.monotonic() - t")
    assert program.ask("r, 0.05 <= t < 0.5, m[0:2]") == "(b'012', True, b'01')"
    entered = held.ask("state")["ok"]["entered"][str(program.directory)]
    assert entered["left"] == {}
    held.set(volume(program.directory, errno=5, methods=["write"]))
    assert program.ask("os.pwrite(a, b'x', 0)") == "OSError(5, 'Input/output error')"
    held.ask("quit")
    assert program.picture() == before
    assert program.ask("os.pwrite(a, b'x', 0)") == "1"
    wait(lambda: not held.processes())


def test_under_load_a_dead_filter_costs_each_file_one_error_at_most(programs, faults):
    program = programs()
    program.ask("files = [os.open(d + str(i), os.O_RDWR | os.O_CREAT) for i in range(200)]")
    program.ask("[os.pwrite(f, b'x' * 64, 0) for f in files]")
    program.ask("going, errors, done = True, collections.Counter(), 0")
    program.ask(
        "def work(j):\n  global done\n  while going:\n    j += 8; f = files[j % 200]\n"
        "    try: os.pread(f, 64, 0); os.pwrite(f, b'y' * 64, 0); done += 1\n"
        "    except OSError: errors[f] += 1"
    )
    program.ask("threads = [threading.Thread(target=work, args=(j,)) for j in range(8)]")
    program.ask("[t.start() for t in threads]")
    held = faults(program)
    held.set(volume(program.directory, latency_us=1000, methods=["read", "write"]))
    assert len(program.mounts()) == 1
    filter_, _ = held.processes()
    os.kill(filter_, signal.SIGKILL)
    assert wait(lambda: not program.mounts()) < 10
    wait(lambda: not held.processes())
    program.ask("before = done; time.sleep(0.2)")
    assert program.ask("done > before") == "True"
    assert program.ask("max(errors.values(), default=0) <= 1") == "True"
    program.ask("going = False; [t.join() for t in threads]")


def test_a_filter_that_is_stopped_is_killed(programs, faults):
    program = programs()
    program.ask("a = os.open(d + 'a', os.O_RDWR | os.O_CREAT); os.write(a, b'kept')")
    before = program.picture()
    held = faults(program)
    held.set(volume(program.directory, latency_us=1, methods=["read"]))
    os.kill(held.processes()[0], signal.SIGSTOP)
    assert wait(lambda: not program.mounts(), within=20) < 12
    assert program.picture() == before
    assert program.ask("os.pread(a, 4, 0)") == "b'kept'"


def test_a_rule_that_comes_later_is_felt_by_what_is_open(programs, faults):
    program = programs()
    program.ask("a = os.open(d + 'a', os.O_RDWR | os.O_CREAT); os.write(a, b'kept')")
    program.ask("os.lseek(a, 2, 0); m = mmap.mmap(a, 4)")
    before = program.picture()
    held = faults(program)
    other = volume(program.directory, errno=5, methods=["read"], path=f"{program.directory}/b")
    held.set(other)
    assert program.ask("os.read(a, 1)") == "b'p'"
    held.set(volume(program.directory, errno=5, methods=["read"]))
    assert held.ask("state")["ok"]["bypassing"] == 0
    assert program.ask("os.read(a, 1)") == "OSError(5, 'Input/output error')"
    held.set(other)
    assert program.ask("os.read(a, 1)") == "b't'"
    program.ask("os.lseek(a, 2, 0)")
    held.ask("quit")
    assert program.picture() == before


def test_a_filter_ends_without_its_guardian(programs, faults):
    program = programs()
    program.ask("a = os.open(d + 'a', os.O_RDWR | os.O_CREAT)")
    before = program.picture()
    held = faults(program)
    held.set(volume(program.directory, **LATENCY))
    _, guardian = held.processes()
    os.kill(guardian, signal.SIGKILL)
    wait(lambda: not held.processes())
    assert program.picture() == before


def test_what_both_have_left_is_found_by_its_mark(programs, faults):
    program = programs()
    program.ask("a = os.open(d + 'a', os.O_RDWR | os.O_CREAT); os.write(a, b'kept')")
    program.ask("os.chdir(d)")
    before = program.picture()
    held = faults(program)
    held.set(volume(program.directory, **LATENCY))
    for process in reversed(held.processes()):
        os.kill(process, signal.SIGSTOP)
    for process in held.processes():
        os.kill(process, signal.SIGKILL)
    wait(lambda: not held.processes())
    assert program.ask("os.pread(a, 4, 0)").startswith("OSError(")
    subprocess.run([NODE, "files-restore", "--pid", str(program.pid)], check=True)
    assert program.picture() == before
    assert program.ask("os.pread(a, 4, 0)") == "b'kept'"


@pytest.mark.parametrize("how", ["lease", "deadline", "signal"])
def test_it_ends_by_itself(programs, faults, how):
    program = programs()
    program.ask("a = os.open(d + 'a', os.O_RDWR | os.O_CREAT)")
    before = program.picture()
    held = faults(program)
    deadline = time.clock_gettime(time.CLOCK_BOOTTIME) + 0.5 if how == "deadline" else None
    held.set(volume(program.directory, **LATENCY), lease=0.2, deadline=deadline)
    if how == "lease":
        held.close()
    elif how == "signal":
        os.kill(held.processes()[0], signal.SIGTERM)
    wait(lambda: not held.processes())
    assert program.picture() == before


def test_it_ends_with_the_target(programs, faults):
    program = programs()
    held = faults(program)
    held.set(volume(program.directory, **LATENCY))
    program.end()
    wait(lambda: not held.processes())


def test_somebody_who_is_traced_already_is_left_alone(programs, faults):
    program = programs()
    program.ask("a = os.open(d + 'a', os.O_RDWR | os.O_CREAT)")
    before = program.picture()
    held = faults(program)
    tracer = subprocess.Popen(
        ["strace", "-o", "/dev/null", "-p", str(program.pid)], stderr=subprocess.DEVNULL
    )
    try:
        status = Path(f"/proc/{program.pid}/status")
        wait(lambda: f"TracerPid:\t{tracer.pid}" in status.read_text())
        error = held.set(volume(program.directory, **LATENCY))["error"]
    finally:
        tracer.terminate()
        tracer.wait()
    assert error["kind"] == "TryAgain"
    assert f"is traced by strace (process {tracer.pid})" in error["message"]
    assert program.picture() == before
    assert "ok" in held.set(volume(program.directory, **LATENCY))
    held.ask("quit")
    assert program.picture() == before
