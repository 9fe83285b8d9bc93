"""What a container mounts while a filter stands there, and how it finds that when it is gone."""

import os
import subprocess
from pathlib import Path

import pytest

from testbed.entered import NODE, Program, volume, wait

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

SLOW = {"latency_us": 1000, "methods": ["read", "write"]}


def end(program, held, how):
    processes = held.processes()
    if how == "quit":
        held.ask("quit")
    elif how == "filter":
        os.kill(processes[0], 9)
    else:
        for blow in (19, 9):  # neither shall act on the other's end
            for one in processes:
                os.kill(one, blow)
        wait(lambda: not held.processes())
        command = [NODE, "files-restore", "--pid", str(program.pid)]
        subprocess.run(command, check=True, capture_output=True)
    wait(lambda: not program.mounts())


@pytest.fixture
def nested(programs, tmp_path):
    """Start a container in that of a program: it has one directory of it under another name."""
    started = []

    def start(program, source, target):
        enter = ["nsenter", "-t", str(program.pid), "-m", "unshare", "--mount"]
        bind = f'mount --bind {source} {target} && exec "$@"'
        wrapper = [*enter, "--propagation=private", "sh", "-c", bind, "sh"]
        started.append(Program(target, wrapper=wrapper))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.mark.parametrize("how", ["quit", "filter", "both"])
def test_what_is_bound_elsewhere_is_there_and_true_afterwards(
    programs, faults, nested, tmp_path, how
):
    program = programs()
    own, whole, inner = (tmp_path / name for name in ("own", "whole", "inner"))
    for path in (own, whole, inner, program.directory / "sub"):
        path.mkdir()
    held = faults(program)
    held.set(volume(program.directory, **SLOW))
    for source, target in ((program.directory / "sub", own), (program.directory, whole)):
        program.ask(f"subprocess.run(['mount', '--bind', '{source}', '{target}'], check=True)")
    child = nested(program, program.directory / "sub", inner)
    users = ((program, own, "a"), (program, whole / "sub", "b"), (child, inner, "c"))
    for one, path, f in users:
        one.ask(f"{f} = os.open('{path}/{f}', os.O_RDWR | os.O_CREAT); os.write({f}, b'true')")
        one.ask(f"m{f} = mmap.mmap({f}, 4)")
    before = [shown(one, f) for one, _, f in users]
    end(program, held, how)
    assert not child.mounts()
    for one, path, f in users:
        assert one.ask(f"os.pread({f}, 4, 0), m{f}[:]") == "(b'true', b'true')"
        assert one.ask(f"sorted(os.listdir('{path}'))") == "['a', 'b', 'c']"
        assert one.ask(f"os.pwrite({f}, b'T', 0)") == "1"
        assert (program.directory / "sub" / f).read_text() == "True"
    assert before == [shown(one, f) for one, _, f in users]
    assert len(Path(f"/proc/{child.pid}/mountinfo").read_text().split(f" {inner} ")) == 2


def shown(program, name):
    """Where the kernel says that an open file is."""
    return str(Path(f"/proc/{program.pid}/fd/{program.ask(name)}").readlink())
