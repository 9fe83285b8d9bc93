"""File faults on this kernel: felt through what is open already, proven, and taken back."""

import asyncio
import os
import signal
import subprocess
from errno import EIO, ENOENT, ENOSPC
from pathlib import Path

import pytest

from squall.errors import InvalidFault, TargetGone
from squall.faults import kinds
from squall.injection.contract import Live, Verdict
from squall.injection.kind import load
from squall.injection.laws import Ground, Laws, Notes
from squall.injection.world import NOWHERE, World
from squall.injection.world.files import FilesState
from squall.linux import filter_mounts
from squall.linux.clock import SystemClock
from squall.linux.file_capabilities import FILE_TRIALS
from squall.linux.files import LinuxFiles
from squall.linux.holder import Holder
from squall.node.doctor import Ability

from .clerk import clerk

pytestmark = [pytest.mark.host, pytest.mark.timeout(60)]

KIND = kinds()["IOChaos"]
CLOCK = SystemClock()
OPEN = "fd = os.open({path!r}, os.O_RDWR | os.O_CREAT)"
TEXT = b"what is true stays true"


@pytest.fixture
async def files(tmp_path):
    (tmp_path / "run").mkdir()
    adapter = LinuxFiles(tmp_path / "run", lease_seconds=5)
    yield adapter
    await adapter.end_all()


@pytest.fixture
def target(tmp_path):
    with clerk(tmp_path / "data") as made:
        (made.data / "book").write_bytes(TEXT)
        (made.data / "wal").mkdir()
        made.do(OPEN.format(path=str(made.data / "book")))
        yield made


def world(files):
    return World(CLOCK, NOWHERE, NOWHERE, NOWHERE, NOWHERE, files=files)


def live(target, source="a/.", below="", **fault):
    told = {"action": "latency", "volume": str(target.data) + below, **fault}
    return Live(source, KIND.fault.model_validate(told))


async def converge(files, target, *lives):
    await load(KIND.injector)(world(files)).converge(target.target, lives, Notes())


async def judged(files, one, target):
    probe = load(KIND.probe)(world(files))
    return probe.judge(one.fault, None, await probe.sample(target.target, one))


async def ended(socket, seconds=10):
    """Wait until nobody listens at a socket any more."""
    async with asyncio.timeout(seconds):
        while await Holder.connect(socket):
            await CLOCK.sleep(0.02)


async def gone(target, seconds=10):
    """Wait until no mount of ours is in the target any more."""
    async with asyncio.timeout(seconds):
        while filter_mounts.of(target.target):
            await CLOCK.sleep(0.02)


async def test_latency_is_felt_by_what_is_open_and_is_proven_and_goes(files, target, tmp_path):
    before = target.mounts(), target.handles()
    slow = live(target, delay_us=50_000, methods=("read",))
    await converge(files, target, slow)
    felt = await asyncio.to_thread(target.do, "os.pread(fd, 99, 0)")
    assert (felt.value.encode(), felt.errno) == (TEXT, 0)
    assert 50 <= felt.ms < 150
    judgement = await judged(files, slow, target)
    assert judgement.verdict is Verdict.CONFIRMED, judgement
    await converge(files, target)
    assert target.do("os.pread(fd, 99, 0)").ms < 50
    assert (target.mounts(), target.handles()) == before
    assert not (tmp_path / "run").exists()


async def test_an_error_is_felt_and_what_was_written_before_is_there_after(files, target):
    broken = live(target, action="fault", errno=EIO, methods=("write", "fsync"))
    await converge(files, target, broken)
    assert target.do("os.pwrite(fd, b'WHAT', 0)").errno == EIO
    assert target.do("os.fsync(fd)").errno == EIO
    assert target.do("os.pread(fd, 99, 0)").value.encode() == TEXT
    judgement = await judged(files, broken, target)
    assert judgement.verdict is not Verdict.MISMATCH, judgement
    await converge(files, target)
    assert target.do("os.pwrite(fd, b'WHAT', 0)").errno == 0
    assert (target.data / "book").read_bytes() == b"WHAT" + TEXT[4:]


async def test_attributes_are_told_and_not_changed(files, target):
    false = live(target, action="attrOverride", attributes={"size": 7, "perm": 0o111, "uid": 42})
    await converge(files, target, false)
    path = str(target.data / "book")
    told = target.do(f"[s := os.stat({path!r}), [s.st_size, s.st_mode & 0o7777, s.st_uid]][1]")
    assert told.value == [7, 0o111, 42]
    judgement = await judged(files, false, target)
    assert judgement.verdict is Verdict.CONFIRMED, judgement
    await converge(files, target)
    assert target.do(f"os.stat({path!r}).st_size").value == len(TEXT)


async def test_mistakes_are_in_what_is_read_and_the_file_stays_true(files, target):
    wrong = {"filling": "zero", "max_occurrences": 1, "max_length": 4}
    mistaken = live(target, action="mistake", mistake=wrong, methods=("read",))
    await converge(files, target, mistaken)
    assert target.do("os.pread(fd, 99, 0)").value.encode("latin-1") != TEXT
    judgement = await judged(files, mistaken, target)
    assert judgement.verdict is Verdict.CONFIRMED, judgement
    await converge(files, target)
    assert target.do("os.pread(fd, 99, 0)").value.encode() == TEXT
    assert (target.data / "book").read_bytes() == TEXT


async def test_a_disk_is_full_after_so_many_bytes_and_the_same_write_goes_on_after(files, target):
    full = live(target, action="noSpace", space=4096)
    await converge(files, target, full)
    new = str(target.data / "new")
    target.do(f"new = os.open({new!r}, os.O_RDWR | os.O_CREAT)")
    assert target.do("os.write(new, b'x' * 4096)").value == 4096
    assert target.do("os.write(new, b'y' * 4096)").errno == ENOSPC
    judgement = await judged(files, full, target)
    assert judgement.verdict is not Verdict.MISMATCH, judgement
    await converge(files, target)
    assert target.do("os.write(new, b'y' * 4096)").value == 4096
    assert (target.data / "new").read_bytes() == b"x" * 4096 + b"y" * 4096


@pytest.mark.parametrize("dies", [True, False])
async def test_power_that_fails_takes_what_was_not_synced_and_nothing_else(
    files, target, tmp_path, dies
):
    await converge(files, target, live(target, action="powerLoss"))
    target.do("os.pwrite(fd, b'SYNCED', 0)")
    target.do("os.fsync(fd)")
    target.do("os.pwrite(fd, b'lost', 0)")
    target.do("os.ftruncate(fd, 4)")
    if dies:
        [socket] = (tmp_path / "run").glob("*.sock")
        target.process.kill()
        target.process.wait()
        await ended(socket)
        assert (target.data / "book").read_bytes() == b"SYNCED" + TEXT[6:]
    else:
        await converge(files, target)
        assert (target.data / "book").read_bytes() == b"lost"


async def test_several_experiments_on_several_directories_peel_in_any_order(files, target):
    wal = str(target.data / "wal/1")
    target.do(f"wal = os.open({wal!r}, os.O_RDWR | os.O_CREAT)")
    before = target.mounts(), target.handles()
    outer = live(target, "o/.", delay_us=30_000, methods=("write",))
    inner = live(target, "i/.", below="/wal", action="fault", errno=EIO, methods=("write",))
    for first, second in ((outer, inner), (inner, outer)):
        for peeled in (first, second):
            await converge(files, target, first)
            await converge(files, target, first, second)
            failed = await asyncio.to_thread(target.do, "os.write(wal, b'x')")
            assert failed.errno == EIO
            assert failed.ms >= 30
            assert (await asyncio.to_thread(target.do, "os.pwrite(fd, b'w', 0)")).errno == 0
            left = second if peeled is first else first
            await converge(files, target, left)
            failed = await asyncio.to_thread(target.do, "os.write(wal, b'x')")
            assert failed.errno == (EIO if left is inner else 0)
            assert (failed.ms >= 30) is (left is outer)
            await converge(files, target)
            assert (target.mounts(), target.handles()) == before


async def test_working_directory_and_mappings_are_moved_and_given_back(files, target):
    target.do(f"os.chdir({str(target.data)!r})")
    target.do("view = mmap.mmap(fd, 0, prot=mmap.PROT_READ)")
    before = target.handles()
    await converge(files, target, live(target, action="fault", errno=EIO, methods=("open",)))
    assert target.do("os.open('book', os.O_RDONLY)").errno == EIO
    assert target.do("view[:4]").value == "what"
    await converge(files, target)
    assert target.do("os.close(os.open('book', os.O_RDONLY))").errno == 0
    assert target.do("view[:4]").value == "what"
    assert target.handles() == before


async def test_an_agent_that_comes_back_finds_what_is_in_force(files, target, tmp_path):
    slow = live(target, delay_us=20_000, methods=("read",))
    await converge(files, target, slow)
    await asyncio.to_thread(target.do, "os.pread(fd, 1, 0)")
    await files.close()
    again = LinuxFiles(tmp_path / "run", lease_seconds=5)
    assert [volume.path for volume in (await again.state(target.target)).volumes] == [
        str(target.data)
    ]
    assert (await again.counters(target.target))["a/."].delayed == 1
    await converge(again, target, slow)
    assert (await again.counters(target.target))["a/."].delayed == 1, "the same changes nothing"
    await converge(again, target)
    assert await again.state(target.target) == FilesState()


async def holder_of(tmp_path):
    [socket] = (tmp_path / "run").glob("*.sock")
    holder = await Holder.connect(socket)
    assert holder
    holder.close()
    return holder.pid


def children(pid):
    return map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


async def test_when_the_filter_is_killed_the_target_goes_on_and_the_mount_goes(
    files, target, tmp_path
):
    before = target.mounts(), target.handles()
    await converge(files, target, live(target, delay_us=1000, methods=("read",)))
    os.kill(await holder_of(tmp_path), signal.SIGKILL)
    failed = (await asyncio.to_thread(target.do, "os.pread(fd, 99, 0)")).errno
    await gone(target)
    assert failed in {0, 107, 103, 5}
    assert target.do("os.pread(fd, 99, 0)").value.encode() == TEXT
    assert (target.mounts(), target.handles()) == before
    assert await files.state(target.target) == FilesState()


async def test_when_the_guardian_is_killed_too_the_next_agent_takes_all_back(
    files, target, tmp_path
):
    before = target.mounts(), target.handles()
    await converge(files, target, live(target, delay_us=1000, methods=("read",)))
    pid = await holder_of(tmp_path)
    both = (*children(pid), pid)
    for blow in (signal.SIGSTOP, signal.SIGKILL):  # at once: neither shall act on the other's end
        for one in both:
            os.kill(one, blow)
    again = LinuxFiles(tmp_path / "run", lease_seconds=5)
    await converge(again, target)
    assert (target.mounts(), target.handles()) == before
    assert target.do("os.pread(fd, 99, 0)").value.encode() == TEXT


async def test_a_volume_may_be_named_through_a_link(files, target, tmp_path):
    (tmp_path / "link").symlink_to(target.data)
    rule = {"volume": str(tmp_path / "link"), "path": f"{tmp_path}/link/*"}
    broken = live(target, action="fault", errno=EIO, methods=("read",), **rule)
    await converge(files, target, broken)
    assert [one.path for one in (await files.state(target.target)).volumes] == [rule["volume"]]
    assert target.do("os.pread(fd, 1, 0)").errno == EIO
    assert (await judged(files, broken, target)).verdict is Verdict.CONFIRMED


async def test_a_mount_that_somebody_took_away_is_made_anew(files, target):
    broken = live(target, action="fault", errno=EIO, methods=("open",))
    await converge(files, target, broken)
    enter = ("nsenter", f"--mount=/proc/{target.target.pid}/ns/mnt", "--")
    await asyncio.to_thread(subprocess.run, [*enter, "umount", "-l", str(target.data)], check=True)
    assert await files.state(target.target) == FilesState()
    await converge(files, target, broken)
    assert target.do(f"os.open({str(target.data / 'book')!r}, os.O_RDONLY)").errno == EIO


async def test_what_a_target_was_never_told_is_not_there(files, target):
    assert await files.state(target.target) == FilesState()
    assert await files.counters(target.target) == {}


async def test_a_volume_that_is_no_directory_is_refused_and_nothing_is_left(
    files, target, tmp_path
):
    before = target.mounts()
    for below in ("/nowhere", "/book"):
        with pytest.raises(InvalidFault):
            await converge(files, target, live(target, below=below, delay_us=1))
    assert target.mounts() == before
    assert not list((tmp_path / "run").glob("*.sock"))
    assert target.do(f"os.stat({str(target.data / 'nowhere')!r})").errno == ENOENT


async def test_a_target_that_has_ended_is_told_and_its_holder_ends(files, target, tmp_path):
    await converge(files, target, live(target, delay_us=1))
    [socket] = (tmp_path / "run").glob("*.sock")
    target.process.kill()
    target.process.wait()
    with pytest.raises(TargetGone):
        await files.state(target.target)
    await ended(socket)


async def test_this_host_can_do_it():
    capability = await FILE_TRIALS["files:filter"]()
    assert capability.ability is Ability.OK, capability


class RealPart:
    """The mounts of a target, what its handles lead to, and what is in its files."""

    def __init__(self, target):
        self._target = target

    def snapshot(self):
        return self._target.mounts(), self._target.handles(), self.foreign()

    def foreign(self):
        return [
            (str(path), path.read_bytes())
            for path in sorted(self._target.data.rglob("*"))
            if path.is_file()
        ]


@pytest.fixture
def laws(files, target):
    return Laws(
        load(KIND.injector), lambda: Ground(world(files), [RealPart(target)]), target.target
    )


@pytest.fixture
def lives(target):
    a = live(target, "a/.", delay_us=1000)
    b = live(target, "b/.", below="/wal", action="fault", errno=EIO)
    return [[a], [a, b], [b]]


async def test_untouched_stays_untouched(laws):
    await laws.untouched_stays_untouched()


async def test_twice_is_once(laws, lives):
    await laws.twice_is_once(lives[1])


async def test_an_empty_list_gives_back_what_was_there(laws, lives):
    await laws.empty_gives_back_what_was_there(lives)


async def test_foreign_marks_are_left_alone(laws, lives):
    await laws.foreign_marks_are_left_alone(lives)
