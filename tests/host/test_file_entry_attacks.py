"""Targets that would have us do on their files what they may not do themselves."""

from pathlib import Path

import pytest

from testbed.entered import Program, volume

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

ERROR = {"errno": 5, "methods": ["read"]}
ROUNDS = 60

EXCHANGE = """
libc = ctypes.CDLL(None)
going = threading.Event()
def exchange():
    one, other = (d + 'way').encode(), (d + 'link').encode()
    while going.is_set():
        libc.renameat2(-100, one, -100, other, 2)
    if os.path.islink(d + 'way'):
        libc.renameat2(-100, one, -100, other, 2)
def begin():
    global thread
    going.set()
    thread = threading.Thread(target=exchange)
    thread.start()
def end():
    going.clear()
    thread.join()
"""


def test_no_other_mount_is_taken_away_by_a_link_that_comes_and_goes(programs, faults):
    """The other one may be what hides from a container what it must not see."""
    program = programs()
    program.ask("os.makedirs(d + 'way/volume'); os.makedirs(d + 'bait/volume')")
    program.ask("os.symlink('bait', d + 'link')")
    program.ask("subprocess.run(['mount', '-t', 'tmpfs', 'hides', d + 'bait/volume'], check=True)")
    program.ask(EXCHANGE.strip())
    held = faults(program)
    for _ in range(ROUNDS):
        answer = held.set(volume(program.directory / "way/volume", **ERROR))
        assert answer.get("ok") == {}, answer
        program.ask("begin()")
        held.set()  # it may fail while the way leads elsewhere
        program.ask("end()")
        assert hidden(program)
        assert held.set().get("ok") == {}
        assert program.mounts() == []
    held.ask("quit")
    assert hidden(program)


def hidden(program: Program) -> bool:
    return " - tmpfs hides " in Path(f"/proc/{program.pid}/mountinfo").read_text()


@pytest.mark.parametrize("path", ["/proc", "/proc/sys/kernel", "/sys"])
def test_what_is_the_kernels_own_is_no_volume(programs, faults, path):
    program = programs()
    for asked in (Path(path), link_to(program, path)):
        error = faults(program).set(volume(asked, **ERROR))["error"]
        assert error["kind"] == "InvalidFault"
        assert "is the kernel's own" in error["message"]
    assert program.mounts() == []


def test_the_root_is_no_volume_by_any_name(programs, faults):
    program = programs()
    error = faults(program).set(volume(link_to(program, "/"), **ERROR))["error"]
    assert error["kind"] == "InvalidFault"
    assert "leads to the root of the container" in error["message"]
    assert program.mounts() == []


def link_to(program: Program, path: str) -> Path:
    link = program.directory / f"link{len(list(program.directory.iterdir()))}"
    link.symlink_to(path)
    return link


def test_a_process_of_the_host_is_reached_by_no_link(programs, faults):
    """A container that sees the host's processes has links to their roots."""
    program = programs()
    link = link_to(program, f"/proc/{program.pid}/root{program.directory}")
    error = faults(program).set(volume(link, **ERROR))["error"]
    assert error["kind"] in {"InvalidFault", "TryAgain"}
    assert program.mounts() == []
