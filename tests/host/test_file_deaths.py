"""Whoever of us dies, and when: what a program has open is its own again in the end."""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from testbed.entered import NODE, volume, wait

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

SLOW = {"latency_us": 1000, "methods": ["read", "write"]}


def restored(program, *, within=20.0):
    """Give back what is left, as an agent does until it has been done."""
    command = [NODE, "files-restore", "--pid", str(program.pid)]

    def done():
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    return wait(done, within=within)


def kill_both(held):
    """Neither shall act on the other's end."""
    both = held.processes()
    for blow in (signal.SIGSTOP, signal.SIGKILL):
        for one in both:
            with suppress(ProcessLookupError):
                os.kill(one, blow)
    wait(lambda: not held.processes())


def opened(program):
    """Have it use a directory in every way that is carried over."""
    program.ask("files = [os.open(d + str(i), os.O_RDWR | os.O_CREAT) for i in range(300)]")
    program.ask("[os.write(f, b'kept') for f in files]")
    program.ask("m = mmap.mmap(files[0], 4); r = mmap.mmap(files[1], 4, prot=mmap.PROT_READ)")
    program.ask("os.chdir(d)")
    return program.picture()


def test_a_restoration_that_is_refused_can_be_tried_again(programs, faults):
    program = programs()
    before = opened(program)
    held = faults(program)
    held.set(volume(program.directory, **SLOW))
    kill_both(held)
    tracer = subprocess.Popen(
        ["strace", "-o", "/dev/null", "-p", str(program.pid)], stderr=subprocess.DEVNULL
    )
    try:
        status = Path(f"/proc/{program.pid}/status")
        wait(lambda: f"TracerPid:\t{tracer.pid}" in status.read_text())
        command = [NODE, "files-restore", "--pid", str(program.pid)]
        assert subprocess.run(command, check=False, capture_output=True).returncode
    finally:
        tracer.terminate()
        tracer.wait()
    restored(program)
    assert program.picture() == before


@pytest.mark.parametrize("seed", range(3))
def test_filter_and_guardian_killed_one_after_the_other(programs, faults, seed):
    draw = random.Random(seed)  # noqa: S311  (to be repeated, not to be secret)
    program = programs()
    before = opened(program)
    held = faults(program)
    held.set(volume(program.directory, **SLOW))
    filter_, guardian = held.processes()
    os.kill(filter_, signal.SIGKILL)
    time.sleep(draw.uniform(0, 0.15))  # the random moment itself
    with suppress(ProcessLookupError):
        os.kill(guardian, signal.SIGKILL)
    for _ in range(2):  # and whoever restores is killed as well
        command = [NODE, "files-restore", "--pid", str(program.pid)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as restorer:
            time.sleep(draw.uniform(0, 0.08))
            restorer.kill()
    restored(program)
    wait(lambda: not held.processes())
    assert program.mounts() == []
    assert program.picture() == before
    assert program.ask("{os.pread(f, 4, 0) for f in files}, m[:], r[:]") == (
        "({b'kept'}, b'kept', b'kept')"
    )


TRUE = "b'true'"


def made(program, name="a"):
    """Have it make a file, and keep it open under a name."""
    program.ask(f"{name} = os.open(d + '{name}', os.O_RDWR | os.O_CREAT)")
    program.ask(f"os.write({name}, b'true')")


def end(program, held, how):
    if how == "quit":
        held.ask("quit")
    elif how == "killed":
        os.kill(held.processes()[0], signal.SIGKILL)
    else:
        kill_both(held)
        restored(program)


@pytest.mark.parametrize("how", ["quit", "killed"])
def test_a_file_that_others_have_renamed_is_not_taken_for_another(programs, faults, how):
    program = programs()
    made(program)
    program.ask("m = mmap.mmap(a, 4); os.mkdir(d + 'c'); os.chdir(d + 'c')")
    held = faults(program)
    held.set(volume(program.directory, **SLOW))
    data = program.directory
    for name in ("a", "c"):
        (data / name).rename(data / f"{name}.1")
    (data / "a").write_text("else")
    (data / "c").mkdir()
    (data / "c.1" / "here").touch()
    end(program, held, how)
    wait(lambda: not program.mounts())
    assert program.ask("os.pread(a, 4, 0), m[:]") == f"({TRUE}, {TRUE})"
    assert program.ask("os.write(a, b'more'), os.listdir('.')") == "(4, ['here'])"
    assert (data / "a").read_text() == "else"
    assert (data / "a.1").read_text() == "truemore"


def test_files_without_a_name_outlive_the_filter(programs, faults):
    program = programs()
    held = faults(program)
    held.set(volume(program.directory, **SLOW))
    for name in "abc":
        made(program, name)
    program.ask("os.unlink(d + 'a')")
    program.ask("os.link(d + 'b', d + 'b2'); os.unlink(d + 'b')")
    program.ask("open(d + 'new', 'w').close(); os.rename(d + 'new', d + 'c')")
    program.ask("t = os.open(d, os.O_RDWR | os.O_TMPFILE); os.write(t, b'true')")
    program.ask("m = mmap.mmap(a, 4); os.close(a)")
    os.kill(held.processes()[0], signal.SIGKILL)
    wait(lambda: not program.mounts())
    assert program.ask("[os.pread(f, 4, 0) for f in (b, c, t)], m[:]") == (
        f"([{TRUE}, {TRUE}, {TRUE}], {TRUE})"
    )
    wait(lambda: not held.processes())


def test_a_file_without_a_name_that_is_closed_is_kept_by_nobody(programs, faults):
    program = programs()
    held = faults(program)
    held.set(volume(program.directory, **SLOW))
    guardian = Path(f"/proc/{held.processes()[1]}/fd")
    before = len(list(guardian.iterdir()))
    made(program)
    program.ask("os.unlink(d + 'a')")

    def kept():
        links = [os.path.realpath(fd) for fd in guardian.iterdir()]  # some are closed meanwhile
        return any(link.endswith("/a (deleted)") for link in links)

    wait(kept)
    program.ask("os.close(a)")
    wait(lambda: not kept())
    assert len(list(guardian.iterdir())) == before


def test_who_is_traced_gets_its_files_back_once_its_tracer_lets_go(programs, faults):
    program = programs()
    made(program)
    child = int(program.ask("os.fork() or [time.sleep(60), os._exit(0)]"))
    program.ask("b = os.open(d + 'b', os.O_RDWR | os.O_CREAT); os.write(b, b'true')")
    held = faults(program)
    held.set(volume(program.directory, **SLOW))
    tracer = subprocess.Popen(
        ["strace", "-o", "/dev/null", "-p", str(child)], stderr=subprocess.DEVNULL
    )
    try:
        status = Path(f"/proc/{child}/status")
        wait(lambda: f"TracerPid:\t{tracer.pid}" in status.read_text())
        os.kill(held.processes()[0], signal.SIGKILL)
        assert wait(lambda: not program.mounts(), within=20) < 12
        assert program.ask("os.pread(b, 4, 0)") == TRUE  # nobody else shares that
        assert program.ask("open(d + 'a').read()") == "'true'"
    finally:
        tracer.terminate()
        tracer.wait()
    wait(lambda: program.ask("os.pread(a, 4, 0)") == TRUE)
    os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("how", ["quit", "killed", "both"])
def test_what_was_written_through_a_mapping_is_not_lost(programs, faults, how):
    """A database keeps there what it has committed."""
    program = programs()
    made(program)
    program.ask("os.ftruncate(a, 5 * 4096 + 10); m = mmap.mmap(a, 0)")
    held = faults(program)
    held.set(volume(program.directory, **SLOW))
    program.ask("m[4096:4100] = m[-4:] = b'more'")
    program.ask("os.pwrite(a, b'else', 8192)")
    end(program, held, how)
    wait(lambda: not program.mounts())
    assert program.ask("m[:4], m[4096:4100], m[8192:8196], m[-4:]") == (
        f"({TRUE}, b'more', b'else', b'more')"
    )
    true = (program.directory / "a").read_bytes()
    assert (true[4096:4100], true[8192:8196], true[-4:]) == (b"more", b"else", b"more")
    assert len(true) == 5 * 4096 + 10


LOCKED = """
import os, sys, time
a = os.open(sys.argv[1], os.O_RDWR)
open(sys.argv[1] + '.ready', 'w').close()
while not os.path.exists(sys.argv[1] + '.go'):
    try:
        time.sleep(0.01)
    except OSError:
        pass
os.pwrite(a, b'T', 0)
open(sys.argv[1] + '.done', 'w').close()
time.sleep(60)
"""


NAMED = """
def look(act):
  while going:
    try:
      act()
    except OSError as error:
      failed.append(error.errno)
"""


def test_names_are_not_met_as_errors_once_a_killed_filter_has_been_left(programs, faults):
    """Who waits for it when it dies sees that once; PostgreSQL ends without its directory."""
    program = programs()
    acts = ["os.stat(d)", "os.stat(d + 'a')", "os.close(os.open(d + 'a', os.O_RDWR))"]
    program.ask("going, failed = True, []")
    program.ask(NAMED.strip())
    made(program)
    for act in acts:
        program.ask(f"threading.Thread(target=look, args=(lambda: {act},)).start()")
    for killed in range(1, 6):
        held = faults(program)
        held.set(volume(program.directory, **SLOW))
        os.kill(held.processes()[0], signal.SIGKILL)
        wait(lambda: not program.mounts())
        assert int(program.ask("len(failed)")) <= killed * len(acts)
    program.ask("going = False")


@pytest.mark.parametrize("how", ["quit", "killed", "both"])
def test_a_sandbox_that_was_made_over_the_filter_gets_the_true_files(
    programs, faults, tmp_path, how
):
    program = programs()
    made(program)
    held = faults(program)
    held.set(volume(program.directory, **SLOW))
    (tmp_path / "locked.py").write_text(LOCKED)
    sandbox = "['unshare', '--user', '--mount', '--map-root-user', '/usr/bin/python3',"
    program.ask(f"p = subprocess.Popen({sandbox} '{tmp_path}/locked.py', d + 'a'])")
    data = program.directory
    wait((data / "a.ready").exists)
    end(program, held, how)
    wait(lambda: not program.mounts() and not held.processes())
    (data / "a.go").touch()
    wait((data / "a.done").exists)
    assert (data / "a").read_text() == "True"
    program.ask("p.kill(); p.wait()")


FOREIGN = """
.globl _start
_start: movl 8(%esp), %ebx
 movl $5, %eax
 movl $66, %ecx
 movl $384, %edx
 int $0x80
wait: movl $29, %eax
 int $0x80
 jmp wait
"""


def test_a_program_of_32_bits_keeps_nobody_else_from_the_true_files(programs, faults, tmp_path):
    if os.uname().machine != "x86_64":
        pytest.skip("other processors have other programs of 32 bits")
    source, binary = tmp_path / "foreign.s", tmp_path / "foreign"
    source.write_text(FOREIGN)
    subprocess.run(["as", "--32", "-o", f"{binary}.o", source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-o", binary, f"{binary}.o"], check=True)
    program = programs()
    made(program)
    held = faults(program)
    held.set(volume(program.directory, **SLOW))
    if program.ask(f"p = subprocess.Popen(['{binary}', d + 'x'])").startswith("OSError"):
        pytest.skip("this kernel runs no programs of 32 bits")
    wait((program.directory / "x").exists)
    held.ask("quit")
    assert not program.mounts()
    assert program.ask("os.pread(a, 4, 0)") == TRUE
    program.ask("p.kill(); p.wait()")


def test_whoever_moves_files_may_die_at_each_of_its_steps(programs, faults):
    program = programs()
    before = opened(program)
    program.ask("signal.signal(signal.SIGUSR1, lambda *_: None)")
    held = faults(program)
    held.set(volume(program.directory, **SLOW))
    kill_both(held)
    command = [NODE, "files-restore", "--pid", str(program.pid)]
    for step in range(1, 1000):
        blow = ["strace", "-o", "/dev/null", "-e", f"inject=ptrace:signal=KILL:when={step}"]
        died = subprocess.run([*blow, *command], check=False, capture_output=True).returncode
        os.kill(program.pid, signal.SIGUSR1)
        assert program.ask("1 + 1") == "2"
        blocked = Path(f"/proc/{program.pid}/status").read_text().split("SigBlk:")[1]
        assert int(blocked.split()[0], 16) == 0
        if not died:
            break
    assert 20 < step < 999
    after = program.picture()
    for leftover in set(after["fd"]) - set(before["fd"]):  # of the moment when it is being entered
        assert after["fd"].pop(leftover)[0].startswith("socket:")
    assert after == before


def test_whoever_looks_below_a_dead_filter_may_die_at_each_of_its_steps(programs, faults):
    """With its parent, as all programs of a container that is killed: our mark must stay."""
    program = programs()
    before = opened(program)
    held = faults(program)
    held.set(volume(program.directory, **SLOW))
    kill_both(held)
    command = [NODE, "files-restore", "--pid", str(program.pid)]
    calls = {"mount": 1, "open_tree": 6, "move_mount": 2, "umount2": 1}
    stood = set()
    for call, last in calls.items():
        for when in range(1, last + 1):
            for _ in range(2):  # the second one finds what the first one has left
                blows = {call: when, "wait4": 1}
                inject = [f"--inject={name}:signal=KILL:when={n}" for name, n in blows.items()]
                trace = ["strace", "-f", "-o", "/dev/null", *inject]
                subprocess.run([*trace, *command], check=False, capture_output=True)
                (mark,) = program.mounts()
                stood.add(mark.split()[4])
    assert stood == {str(program.directory), "/proc/driver"}
    restored(program)
    assert program.picture() == before
