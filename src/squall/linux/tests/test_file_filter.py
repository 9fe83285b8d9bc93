"""The filter passes everything on: nothing that is done to files comes out otherwise."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.linux.tests.file_cases import CASES
from squall.linux.tests.file_data_cases import DATA_CASES
from squall.linux.tests.file_exerciser import Exerciser
from testbed.filters import Filter

pytestmark = pytest.mark.host

SEEN: dict[str, object] = {"source": "seen", "path": "/**", "errno": 5, "percent": 0}
"""A rule that wants to see everything, and never fires."""
STEPS = 1500


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory beside a native one, in the same file system."""
    for name in ("native", "filtered"):
        (tmp_path / name).mkdir(mode=0o755)
    return tmp_path


@pytest.fixture
def filtered(place: Path) -> Iterator[Filter]:
    """The filter over that directory."""
    with Filter.over(place / "filtered") as filtered:
        yield filtered


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rules", [(), (SEEN,)], ids=["served by the kernel", "served by us"])
def test_whatever_is_done_comes_out_as_without_it(place, filtered, seed, rules):
    filtered.set(*rules)
    exerciser = Exerciser(seed, place / "native", place / "filtered")
    try:
        exerciser.run(STEPS)
    finally:
        exerciser.close()


@pytest.mark.parametrize("seed", range(2))
def test_the_same_on_an_older_kernel(place, seed):
    with Filter.over(place / "filtered", old_kernel=True) as filtered:
        filtered.set(SEEN)
        exerciser = Exerciser(seed, place / "native", place / "filtered")
        try:
            exerciser.run(STEPS)
        finally:
            exerciser.close()


@pytest.mark.parametrize("case", CASES + DATA_CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("rules", [(), (SEEN,)], ids=["served by the kernel", "served by us"])
def test_a_case_is_as_without_it(place, filtered, case, rules):
    filtered.set(*rules)
    for directory in (place, *place.parents[:3]):
        directory.chmod(directory.stat().st_mode | 0o111)  # an ordinary user is to come here
    assert case(place / "filtered") == case(place / "native")


def test_rules_that_come_and_go_change_nothing_else(place, filtered):
    exerciser = Exerciser(7, place / "native", place / "filtered")
    try:
        for turn in range(10):
            filtered.set(*((SEEN,) if turn % 2 else ()))
            exerciser.run(STEPS // 10)
    finally:
        exerciser.close()


def test_descriptors_of_ours_are_few_however_many_files_are_known(place, filtered):
    before = filtered.descriptors()
    for number in range(2000):
        (place / "filtered" / f"{number}").touch()
    held = [os.open(place / "filtered" / f"{number}", os.O_RDONLY) for number in range(50)]
    assert len(list((place / "filtered").iterdir())) == 2000
    assert filtered.descriptors() <= before + 256 + len(held) + 8
    for fd in held:
        os.close(fd)
    assert (place / "filtered" / "0").stat().st_size == 0


def test_files_that_nobody_uses_are_forgotten(place, filtered):
    def resident_kib() -> int:
        return int(filtered.resident_mib() * 1024)

    for number in range(6000):
        (place / "filtered" / f"{number}").touch()
    full = resident_kib()
    for _ in range(3):
        for path in (place / "filtered").iterdir():
            path.stat()
    assert resident_kib() <= full + 1024


def test_numbers_agree_where_another_file_system_is_mounted_below(place):
    below = place / "filtered" / "below"
    below.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "squall-test", below), check=True)
    try:
        (below / "file").touch()
        with Filter.over(place / "filtered"):
            number = (below / "file").stat().st_ino
            with os.scandir(below) as entries:
                assert [entry.inode() for entry in entries] == [number]
            told = subprocess.run(
                ("stat", "--format=%i %W", below / "file"), capture_output=True, check=True
            )
            assert int(told.stdout.split()[0]) == number
    finally:
        subprocess.run(("umount", below), check=True)
