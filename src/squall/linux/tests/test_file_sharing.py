"""What processes of one target agree on by locks and mappings holds while faults come and go."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from squall.injection.world.files import FileRule, FilesState, Volume
from squall.injection.world.target import Target
from squall.linux.files import LinuxFiles
from squall.linux.processes import started

from .clerk import clerk

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

WORKERS = 3
TURNS = 5

LOCK = "__import__('fcntl').lockf(fd, 2)"
TRY = "import fcntl, os, sys; fcntl.lockf(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | 4)"

COUNT = """
import fcntl, os, struct, sys
counter, stop, how, done = *sys.argv[1:], 0
def lock(kind):
    if how == "whole":
        return fcntl.flock(fd, {2: fcntl.LOCK_UN, 1: fcntl.LOCK_EX}[kind])
    command = 38 if how == "open file" else fcntl.F_SETLKW
    fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, 0, 0, 0, 0))
fd = os.open(counter, os.O_RDWR)
while not os.path.exists(stop):
    lock(fcntl.F_WRLCK)
    os.pwrite(fd, b"%d" % (int(os.pread(fd, 20, 0)) + 1), 0)
    if how == "closed":
        os.close(fd)
        fd = os.open(counter, os.O_RDWR)
    else:
        lock(fcntl.F_UNLCK)
    done += 1
print(done)
"""
"""Counts in a file, one step at a time, under a lock."""


def rule(path: Path, kind: str) -> FileRule:
    """Make a rule by which files are served by us, or one that leaves them to the kernel."""
    pattern = "/**" if kind == "served by us" else "/none/*"
    return FileRule(source="a/.", below="", path=str(path) + pattern, errno=5, percent=0)


@pytest.fixture
async def files(tmp_path):
    (tmp_path / "run").mkdir()
    adapter = LinuxFiles(tmp_path / "run", lease_seconds=20)
    yield adapter
    await adapter.end_all()


class Crowd:
    """Some processes in one mount namespace, each with its own number."""

    def __init__(self, at: Path, program: str, *words: str) -> None:
        """Start them."""
        self.stop = at / "stop"
        each = [
            (sys.executable, "-I", "-c", program, *(word.format(number) for word in words))
            for number in range(WORKERS)
        ]
        head = "import subprocess, sys; all = eval(sys.argv[1]); "
        run = head + "all = [subprocess.Popen(one) for one in all]; [one.wait() for one in all]"
        command = ("unshare", "--mount", "--propagation", "private", "--")
        self.process = subprocess.Popen(
            (*command, sys.executable, "-I", "-c", run, repr(each)),
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def target(self) -> Target:
        """The first of them, for all."""
        pid = self.process.pid
        return Target("d/web/app", "uid", "", pid, started(pid) or 0)

    def ended(self) -> int:
        """Have them end; say how often they did what they do, all together."""
        self.stop.touch()
        said, _ = self.process.communicate(timeout=60)
        assert len(said.split()) == WORKERS, "one of them has failed"
        return sum(map(int, said.split()))


async def come_and_go(files: LinuxFiles, target: Target, volume: Path) -> None:
    for turn in range(TURNS):
        kind = ("served by us", "served by the kernel")[turn % 2]
        await files.apply(target, FilesState((Volume(str(volume), (rule(volume, kind),)),)))
        await asyncio.sleep(0.05)
        await files.apply(target, FilesState())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


async def test_a_lock_on_a_mapped_file_stays(files, data):
    (data / "book").write_bytes(bytes(8192))
    with clerk(data) as made:
        path = str(data / "book")
        made.do(f"fd = os.open({path!r}, os.O_RDWR)")
        made.do("view = mmap.mmap(fd, 8192)")
        made.do(LOCK)
        words = [sys.executable, "-I", "-c", TRY, path]
        attempt = f"__import__('subprocess').run({words!r}, stderr=-3).returncode"
        assert made.do(attempt).value == 1
        for kind in ("served by us", "served by the kernel"):
            await files.apply(made.target, FilesState((Volume(str(data), (rule(data, kind),)),)))
            assert made.do(attempt).value == 1, kind
        await files.apply(made.target, FilesState())
        assert made.do(attempt).value == 1


@pytest.mark.parametrize("how", ["process", "open file", "whole", "closed"])
async def test_no_step_is_lost_that_a_lock_protects(files, data, tmp_path, how):
    (data / "counter").write_bytes(b"0")
    crowd = Crowd(tmp_path, COUNT, str(data / "counter"), str(tmp_path / "stop"), how)
    await come_and_go(files, crowd.target, data)
    assert crowd.ended() == int((data / "counter").read_bytes()) > 0
