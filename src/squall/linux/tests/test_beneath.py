import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from squall.injection.world.target import Target
from squall.linux import beneath, namespaces
from squall.linux.resolver import read_inside
from squall.linux.trust import LinuxTrust
from testbed.entered import Faults, Program, volume

pytestmark = pytest.mark.host


@pytest.fixture
def data(tmp_path):
    if os.geteuid():
        pytest.skip("needs root")
    made = tmp_path / "data"
    made.mkdir()
    (made / "file").write_text("true")
    return made


@pytest.fixture
def program(data):
    program = Program(data)
    yield program
    program.end()


@pytest.fixture
def filtered(program, data, tmp_path):
    """A program whose file can be neither read nor looked at."""
    faults = Faults(program, tmp_path / "held.files")
    methods = ["open", "read", "write", "getattr", "lookup"]
    assert "ok" in faults.set(volume(data, errno=5, methods=methods))
    assert "Input/output error" in program.ask("open(d + 'file')")
    yield program
    faults.ask("quit")
    faults.close()


def content(pid, path):
    with beneath.root(pid) as root:
        opened = beneath.open_in(root, str(path), os.O_RDONLY)
        with os.fdopen(opened) as file:
            return file.read()


def test_filters_that_come_and_go_meanwhile_disturb_nobody(program, data, tmp_path):
    ended = threading.Event()

    def read_all_the_time():
        return {content(program.pid, data / "file") for _ in iter(ended.is_set, True)}

    with ThreadPoolExecutor(1) as readers:
        reading = readers.submit(read_all_the_time)
        try:
            for number in range(8):
                faults = Faults(program, tmp_path / f"{number}.files")
                faults.set(volume(data, errno=5))
                faults.ask("quit")
                faults.close()
        finally:
            ended.set()
    assert reading.result() == {"true"}


def test_what_a_filter_fails_is_read_and_written_beneath_it(filtered, data):
    before = [Path(f"/proc/{pid}/mountinfo").read_text() for pid in (filtered.pid, "self")]
    assert content(filtered.pid, data / "file") == "true"
    with beneath.root(filtered.pid) as root:
        opened = beneath.open_in(root, str(data / "file"), os.O_RDWR)
        assert os.pwrite(opened, b"T", 0) == 1
        assert os.fstat(opened).st_dev == (data / "file").stat().st_dev
        os.close(opened)
    assert (data / "file").read_text() == "True"
    # Only a copy of its mounts was without the filter.
    assert "Input/output error" in filtered.ask("open(d + 'file')")
    after = [Path(f"/proc/{pid}/mountinfo").read_text() for pid in (filtered.pid, "self")]
    assert after == before


def test_it_leaves_no_mounts_and_no_descriptors(filtered, data):
    content(filtered.pid, data / "file")
    before = sorted(Path("/proc/self/fd").iterdir())
    content(filtered.pid, data / "file")
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_without_a_filter_the_root_is_that_of_the_process(program, data):
    assert content(program.pid, data / "file") == "true"
    with beneath.root(program.pid) as root:
        assert os.fstat(root) == Path(f"/proc/{program.pid}/root").stat()


READ = """
import os, sys
from squall.linux import beneath
with beneath.root(sys.argv[1]) as root:
    print(os.read(beneath.open_in(root, sys.argv[2], os.O_RDONLY), 9))
"""


def test_who_may_not_copy_mounts_reads_what_has_no_filter_over_it_and_nothing_else(
    program, data, tmp_path
):
    def read():
        command = ["setpriv", "--bounding-set=-sys_chroot", "--", sys.executable, "-c", READ]
        done = subprocess.run(
            [*command, str(program.pid), str(data / "file")],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    assert read() == "b'true'\n"
    faults = Faults(program, tmp_path / "held.files")
    assert "ok" in faults.set(volume(data, errno=5, methods=["read"]))
    assert "TryAgain: beneath the file faults of process" in read()
    faults.ask("quit")
    faults.close()


def test_links_never_lead_out(filtered, data):
    (data / "link").symlink_to("../../../../../../../.." + str(data / "file"))
    assert content(filtered.pid, data / "link") == "true"


def test_a_process_that_has_ended_is_an_error():
    with pytest.raises(FileNotFoundError), beneath.root(2**22 + 1):
        pass


def target(program):
    return Target("default/web", "", "", program.pid, namespaces.started(program.pid))


def test_what_names_we_look_up_for_a_target_hangs_on_no_fault_of_its_files(filtered, data):
    assert read_inside(target(filtered), str(data / "file")) == "true"


AUTHORITY = "-----BEGIN CERTIFICATE-----\na\n-----END CERTIFICATE-----\n"
OWN_LIST = 'mount -t tmpfs none "$1" && echo theirs > "$1/file" && shift && exec "$@"'


@pytest.mark.parametrize(
    "fault",
    [
        {"methods": ["open", "lookup", "read", "write"], "errno": 5},
        {
            "methods": ["read", "write"],
            "mistake": {"filling": "random", "max_occurrences": 9, "max_length": 9},
        },
        {"methods": ["getattr", "lookup"], "attributes": {"kind": "directory", "size": 0}},
    ],
    ids=lambda fault: fault["methods"][0],
)
async def test_lists_of_authorities_change_to_the_byte_whatever_their_files_suffer(
    data, tmp_path, fault
):
    wrapper = ["env", f"SSL_CERT_FILE={data}/file", "sh", "-c", OWN_LIST, "sh", str(data)]
    program = Program(data, wrapper=wrapper)
    faults = Faults(program, tmp_path / "held.files")
    try:
        assert "ok" in faults.set(volume(data, **fault))
        trust = LinuxTrust()
        await trust.apply(target(program), {"a/.": AUTHORITY})
        assert await trust.ours(target(program)) == {"a/.": AUTHORITY}
        await trust.apply(target(program), {})
        faults.ask("quit")
        assert program.ask("open(d + 'file').read()") == repr("theirs\n")
    finally:
        program.end()
        faults.close()


async def test_a_list_of_the_host_is_known_as_such_through_a_filter(data, tmp_path):
    program = Program(data, wrapper=["env", f"SSL_CERT_FILE={data}/file"])
    faults = Faults(program, tmp_path / "held.files")
    try:
        assert "ok" in faults.set(volume(data, methods=["fsync"], errno=5))
        await LinuxTrust().apply(target(program), {"a/.": AUTHORITY})
        assert (data / "file").read_text() == "true"
    finally:
        program.end()
        faults.close()
