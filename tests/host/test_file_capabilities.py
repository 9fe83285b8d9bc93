"""Each capability that the filter asks for is one without which a target would notice it."""

import os

import pytest

from squall.injection.privileges import privileges
from testbed.entered import NODE, volume

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

SETCAP = (
    "os.setxattr(d + 'a', 'security.capability', struct.pack('<5I', 1 << 25, 1 << 10, 0, 0, 0))"
)
MISSED = {
    "CHOWN": ("os.chown(d + 'a', 1234, 1234)", "None"),
    "FOWNER": ("os.utime(d + 'a', (5, 5))", "None"),
    "FSETID": ("os.chmod(d + 'a', 0o2750), oct(os.stat(d + 'a').st_mode)", "(None, '0o102750')"),
    "MKNOD": ("os.mknod(d + 'b', 0o20666, os.makedev(1, 3))", "None"),
    "SETFCAP": (SETCAP, "None"),
    "SETGID": ("os.mkdir(d + 'b'), os.stat(d + 'b').st_gid", "(None, 1234)"),
    "SETUID": ("os.mkdir(d + 'b'), os.stat(d + 'b').st_uid", "(None, 1234)"),
}
"""What a target calls, and what it is told where nothing is missing."""

MORE_THAN_STAY_OPEN = 600
"""Files of which the filter keeps a descriptor open: `ANCHORS` in its `anchors.rs`, and some."""


def node_with(path, names):
    """Make a `squall-node` that has these capabilities only."""
    bounds = ",".join(["-all", *(f"+{name.lower()}" for name in sorted(names))])
    path.write_text(f'#!/bin/sh\nexec setpriv --bounding-set={bounds} -- {NODE} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", sorted(MISSED))
def test_a_capability_that_is_left_out_is_missed(public_path, programs, faults, tmp_path, name):
    call, told = MISSED[name]
    granted = set(privileges(["files:filter"]))
    answers = []
    for number, names in enumerate((granted, granted - {name})):
        data = public_path / str(number)
        data.mkdir()
        data.chmod(0o777)
        (data / "a").write_text("x")
        os.chown(data / "a", 4321, 4321)
        who = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "--"]
        program = programs(directory=data, wrapper=who if name in {"SETGID", "SETUID"} else [])
        held = faults(program, node=node_with(tmp_path / f"node-{number}", names))
        assert held.set(volume(data, latency_us=1, methods=["read"]))["ok"] == {}
        answers.append(program.ask(call))
        held.ask("quit")
        assert program.mounts() == []
    assert answers[0] == told
    assert answers[1] != told


def test_without_dac_read_search_a_file_that_was_renamed_from_outside_is_lost(
    programs, faults, tmp_path
):
    granted = set(privileges(["files:filter"]))
    answers = []
    for number, names in enumerate((granted, granted - {"DAC_READ_SEARCH"})):
        data = tmp_path / f"data-{number}"
        data.mkdir()
        for name in range(MORE_THAN_STAY_OPEN):
            (data / str(name)).touch()
        program = programs(directory=data)
        held = faults(program, node=node_with(tmp_path / f"node-{number}", names))
        assert held.set(volume(data, latency_us=1, methods=["read"]))["ok"] == {}
        program.ask("known = os.open(d + '0', os.O_PATH)")
        program.ask(f"for name in range({MORE_THAN_STAY_OPEN}): os.stat(d + str(name))")
        (data / "0").rename(data / "elsewhere")
        answers.append(program.ask("os.chmod(f'/proc/self/fd/{known}', 0o600)"))
    assert answers[0] == "None"
    assert "Stale file handle" in answers[1]


def test_no_namespace_is_entered_without_sys_chroot(programs, faults, tmp_path):
    granted = set(privileges(["files:filter"])) - {"SYS_CHROOT"}
    program = programs()
    held = faults(program, node=node_with(tmp_path / "node", granted))
    error = held.set(volume(program.directory, latency_us=1, methods=["read"]))["error"]
    assert error["kind"] == "Unsupported"
    assert program.mounts() == []
