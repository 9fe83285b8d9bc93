"""Volumes of every kind, and targets that are not easily entered."""

import os
import subprocess
from pathlib import Path

import pytest

from testbed.entered import volume, wait

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

ERROR = {"errno": 5, "methods": ["read"]}
FELT = "OSError(5, 'Input/output error')"


def felt_and_gone(program, held, *volumes):
    """Enter, be felt by open file `a`, leave nothing."""
    before = program.picture()
    assert held.set(*volumes)["ok"] == {}
    assert program.ask("os.pread(a, 4, 0)") == FELT
    held.ask("quit")
    assert program.picture() == before
    assert program.ask("os.pread(a, 4, 0)") == "b'kept'"


def has_open(program, name="a"):
    return program.ask(f"a = os.open(d + '{name}', os.O_RDWR | os.O_CREAT); os.write(a, b'kept')")


def test_a_symbolic_link_is_followed_in_the_container(programs, faults):
    program = programs()
    has_open(program)
    link = program.directory.with_name("link")
    link.symlink_to(program.directory)
    held = faults(program)
    felt_and_gone(program, held, volume(link, **ERROR))


def test_a_mount_of_its_own_read_only(programs, faults):
    program = programs()
    has_open(program)
    program.ask("subprocess.run(['mount', '--bind', d, d], check=True)")
    program.ask("subprocess.run(['mount', '-o', 'remount,bind,ro', d], check=True)")
    program.ask("a = os.open(d + 'a', os.O_RDONLY)")
    held = faults(program)
    before = program.picture()
    held.set(volume(program.directory, **ERROR))
    assert program.ask("os.pread(a, 4, 0)") == FELT
    assert program.ask("os.open(d + 'b', os.O_CREAT | os.O_RDWR)") == (
        "OSError(30, 'Read-only file system')"
    )
    held.ask("quit")
    assert program.picture() == before


def test_others_who_share_the_mount_do_not_get_ours_and_go_on_sharing(programs, faults):
    program = programs()
    program.ask("subprocess.run(['mount', '-t', 'tmpfs', 'none', d], check=True)")
    program.ask("subprocess.run(['mount', '--make-shared', d], check=True)")
    has_open(program)
    other = programs(
        propagation="unchanged",
        wrapper=[
            "nsenter",
            "-t",
            str(program.pid),
            "-m",
            "unshare",
            "--mount",
            "--propagation=unchanged",
        ],
    )
    held = faults(program)
    before = program.picture()
    assert held.set(volume(program.directory, **ERROR))["ok"] == {}
    assert program.ask("os.pread(a, 4, 0)") == FELT
    assert (len(program.mounts()), len(other.mounts())) == (1, 0)
    held.ask("quit")
    assert program.picture() == before
    program.ask("os.mkdir(d + 'sub')")
    program.ask("subprocess.run(['mount', '-t', 'tmpfs', 'shared-on', d + 'sub'], check=True)")
    assert "shared-on" in Path(f"/proc/{other.pid}/mountinfo").read_text()


def test_two_volumes_and_what_is_mounted_below_one(programs, faults):
    program = programs()
    program.ask("os.mkdir(d + 'one'); os.mkdir(d + 'two'); os.mkdir(d + 'one/in')")
    program.ask("subprocess.run(['mount', '-t', 'tmpfs', 'none', d + 'one/in'], check=True)")
    has_open(program, "one/in/a")
    program.ask("b = os.open(d + 'two/b', os.O_RDWR | os.O_CREAT)")
    held = faults(program)
    one, two = (volume(program.directory / name, **ERROR) for name in ("one", "two"))
    before = program.picture()
    held.set(one, two)
    assert program.ask("os.pread(a, 4, 0)") == FELT
    assert program.ask("os.pread(b, 4, 0)") == FELT
    held.set(two)
    assert program.ask("os.pread(a, 4, 0)") == "b'kept'"
    assert program.ask("os.pread(b, 4, 0)") == FELT
    held.set(volume(program.directory, **ERROR))
    assert program.ask("os.pread(a, 4, 0)") == FELT
    assert len(program.mounts()) == 1
    held.ask("quit")
    assert program.picture() == before


def test_a_file_that_was_removed_while_the_filter_stood_there_is_kept(programs, faults):
    program = programs()
    held = faults(program)
    held.set(volume(program.directory, latency_us=1, methods=["read"]))
    has_open(program)
    program.ask("os.unlink(d + 'a')")
    held.ask("quit")
    assert program.mounts() == []
    assert program.ask("os.pread(a, 4, 0), os.fstat(a).st_nlink") == "(b'kept', 0)"


@pytest.mark.parametrize(
    "how",
    [
        {"wrapper": ["setpriv", "--reuid=1234", "--clear-groups", "--no-new-privs", "--"]},
        {"more": ["--user", "--map-root-user"]},
        {"more": ["--pid", "--fork"]},
    ],
    ids=["user", "user-namespace", "pid-namespace"],
)
def test_other_users_and_namespaces(public_path, programs, faults, how):
    public_path.chmod(0o777)
    program = programs(directory=public_path, **how)
    has_open(program)
    felt_and_gone(program, faults(program), volume(program.directory, **ERROR))


FORBID = """
import struct
def forbid(*numbers):
    ops = [struct.pack('HBBI', 0x20, 0, 0, 0)]
    for n in numbers:
        ops += [struct.pack('HBBI', 0x15, 0, 1, n), struct.pack('HBBI', 0x06, 0, 0, 0x80000000)]
    ops += [struct.pack('HBBI', 0x06, 0, 0, 0x7fff0000)]
    code = ctypes.create_string_buffer(b''.join(ops))
    prog = struct.pack('HxxxxxxQ', len(ops), ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    return libc.prctl(38, 1, 0, 0, 0), libc.prctl(22, 2, ctypes.create_string_buffer(prog), 0, 0)
"""


def test_system_calls_that_its_seccomp_filter_kills_for(programs, faults):
    program = programs()
    has_open(program)
    program.ask(FORBID.strip())
    # mmap, munmap, dup3, recvmsg, socketpair, sendto, recvfrom of x86-64
    assert program.ask("forbid(292, 47, 53, 44, 45)") == "(0, 0)"
    felt_and_gone(program, faults(program), volume(program.directory, **ERROR))


VFORK = r"""
#include <unistd.h>
#include <stdio.h>
#include <fcntl.h>
int main(int n, char **argv) {
    int file = open(argv[1], O_RDWR | O_CREAT, 0600);
    write(file, "kept", 4);
    puts("ready"); fflush(stdout);
    if (vfork() == 0) { sleep(2); _exit(0); }
    char text[4];
    for (;;) {
        if (pread(file, text, 4, 0) < 0) { puts("felt"); fflush(stdout); sleep(60); }
        usleep(1000);
    }
}
"""


def test_the_parent_of_a_vfork_is_waited_for(programs, faults, tmp_path):
    (tmp_path / "vfork.c").write_text(VFORK)
    subprocess.run(["gcc", "-o", tmp_path / "vfork", tmp_path / "vfork.c"], check=True)
    program = programs()
    program.ask(f"p = subprocess.Popen(['{tmp_path}/vfork', d + 'a'], stdout=subprocess.PIPE)")
    assert program.ask("p.stdout.readline()") == "b'ready\\n'"
    held = faults(program)
    assert held.set(volume(program.directory, **ERROR))["ok"] == {}
    entered = held.ask("state")["ok"]["entered"][str(program.directory)]
    assert entered["left"] == {}
    assert program.ask("p.stdout.readline()") == "b'felt\\n'"
    held.ask("quit")
    assert program.mounts() == []
    program.ask("p.kill()")
    wait(lambda: not held.processes())


def test_who_shares_the_mounts_of_the_host_is_refused(programs, faults):
    program = programs(propagation="unchanged", wrapper=["nsenter", "-t", str(os.getpid()), "-m"])
    error = faults(program).set(volume(program.directory, **ERROR))["error"]
    assert error["kind"] == "InvalidFault"
    assert "no mount namespace of its own" in error["message"]


def test_what_is_no_directory_there_is_refused(programs, faults):
    program = programs()
    has_open(program)
    held = faults(program)
    for path, why in (("a", "is not a directory there"), ("none", "no such directory there")):
        error = held.set(volume(program.directory / path, **ERROR))["error"]
        assert error["kind"] == "InvalidFault"
        assert why in error["message"]
