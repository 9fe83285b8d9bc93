"""What rules do to requests, and to no others."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.filters import Filter, until

pytestmark = pytest.mark.host

LONG_US = 20_000_000


@pytest.fixture
def filtered(tmp_path: Path) -> Iterator[Filter]:
    """The filter over a directory with a few files."""
    (tmp_path / "d").mkdir()
    for name in ("a", "b", "d/c"):
        (tmp_path / name).write_bytes(b"0123456789" * 1000)
    with Filter.over(tmp_path) as filtered:
        yield filtered


def rule(source: str = "s", **what: object) -> dict[str, object]:
    return {"source": source, **what}


def seconds(act: Callable[[], object]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start


def error(act: Callable[[], object]) -> int:
    try:
        act()
    except OSError as raised:
        return raised.errno or 0
    return 0


def read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def test_a_latency_is_felt_once_by_each_request_it_names(filtered, tmp_path):
    filtered.set(rule(path=f"{tmp_path}/a", methods=["read"], latency_us=100_000))
    assert 0.1 <= seconds(lambda: read(tmp_path / "a")) < 0.19
    assert seconds(lambda: read(tmp_path / "b")) < 0.05
    assert seconds((tmp_path / "a").stat) < 0.05
    counters = filtered.counters("s")
    assert (counters["matched"], counters["delayed"]) == (1, 1)
    assert 100_000 <= counters["delay_us_sum"] < 190_000


def test_latencies_add_up_and_an_error_comes_after_them(filtered, tmp_path):
    filtered.set(
        rule("one", methods=["open"], latency_us=50_000),
        rule("two", methods=["OPEN"], latency_us=60_000, errno=errno.EMFILE),
        rule("never", methods=["open"], errno=errno.EIO),
    )
    assert 0.11 <= seconds(lambda: error(lambda: read(tmp_path / "a"))) < 0.5
    assert error(lambda: read(tmp_path / "a")) == errno.EMFILE
    assert filtered.counters("two")["failed"] == 2
    assert filtered.counters("never")["matched"] == 0


def test_who_waits_keeps_nobody_else_waiting(filtered, tmp_path):
    filtered.set(rule(path="/**/a", methods=["read"], latency_us=1_000_000))
    waiting = [threading.Thread(target=read, args=(tmp_path / "a",)) for _ in range(30)]

    def all_wait() -> None:
        for thread in waiting:
            thread.start()
        until(lambda: filtered.counters("s")["delayed"] == 30)
        assert seconds(lambda: [read(tmp_path / "b") for _ in range(20)]) < 0.3
        for thread in waiting:
            thread.join()

    assert 1 <= seconds(all_wait) < 1.8


def test_who_waits_can_be_killed_and_does_not_notice_other_signals(filtered, tmp_path):
    filtered.set(rule(path="/**/a", methods=["read"], latency_us=LONG_US))
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        os.write(1, b"") if error(lambda: os.read(fd, 1)) else None
        os._exit(1)
    os.close(fd)
    until(lambda: filtered.counters("s")["delayed"] == 1)
    os.kill(child, signal.SIGUSR1)
    time.sleep(0.2)  # time to be interrupted, if it were
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGKILL)
    assert seconds(lambda: os.waitpid(child, 0)) < 1


@pytest.mark.parametrize(
    ("method", "act"),
    [
        ("lookup", lambda at: (at / "a").stat()),
        ("getattr", lambda at: (at / "a").stat()),
        ("setattr", lambda at: (at / "a").chmod(0o600)),
        ("readlink", lambda at: (at / "l").readlink()),
        ("mknod", lambda at: os.mkfifo(at / "p")),
        ("mkdir", lambda at: (at / "m").mkdir()),
        ("unlink", lambda at: (at / "a").unlink()),
        ("rmdir", lambda at: (at / "e").rmdir()),
        ("symlink", lambda at: (at / "t").symlink_to("a")),
        ("rename", lambda at: (at / "a").rename(at / "z")),
        ("link", lambda at: os.link(at / "a", at / "h")),
        ("open", lambda at: read(at / "a")),
        ("read", lambda at: read(at / "a")),
        ("write", lambda at: os.pwrite(os.open(at / "a", os.O_WRONLY), b"x", 0)),
        ("flush", lambda at: os.close(os.open(at / "a", os.O_RDONLY))),
        ("fsync", lambda at: os.fsync(os.open(at / "a", os.O_RDONLY))),
        ("opendir", lambda at: list((at / "d").iterdir())),
        ("readdir", lambda at: list((at / "d").iterdir())),
        ("fsyncdir", lambda at: os.fsync(os.open(at / "d", os.O_RDONLY))),
        ("statfs", os.statvfs),
        ("setxattr", lambda at: os.setxattr(at / "a", "user.a", b"")),
        ("getxattr", lambda at: os.getxattr(at / "a", "user.x")),
        ("listxattr", lambda at: os.listxattr(at / "a")),
        ("removexattr", lambda at: os.removexattr(at / "a", "user.x")),
        ("create", lambda at: (at / "n").touch()),
        ("fallocate", lambda at: os.posix_fallocate(os.open(at / "a", os.O_WRONLY), 0, 1)),
        ("lseek", lambda at: os.lseek(os.open(at / "a", os.O_RDONLY), 0, os.SEEK_DATA)),
    ],
)
def test_each_method_is_hit_by_its_name_alone(filtered, tmp_path, method, act):
    (tmp_path / "l").symlink_to("a")
    (tmp_path / "e").mkdir()
    os.setxattr(tmp_path / "a", "user.x", b"")
    others = [m for m in ("bmap", "getlk", "read", "statfs", "mkdir") if m != method]
    filtered.set(rule(methods=[method], errno=errno.EXDEV))
    assert error(lambda: act(tmp_path)) == errno.EXDEV
    assert 1 <= filtered.counters("s")["failed"] <= 2  # a name that was known is looked up twice
    filtered.set(
        rule("other", methods=others[:1], errno=errno.EXDEV),
        rule("slow", methods=[method], latency_us=2000),
    )
    assert error(lambda: act(tmp_path)) == 0
    assert filtered.counters("slow")["delayed"] > 0


def test_paths_are_as_the_target_sees_them_by_any_of_their_names(filtered, tmp_path):
    filtered.set(rule(path=f"{tmp_path}/d/*", methods=["read"], errno=errno.EIO))
    assert error(lambda: read(tmp_path / "d" / "c")) == errno.EIO
    assert error(lambda: read(tmp_path / "a")) == 0
    (tmp_path / "d").rename(tmp_path / "moved")
    assert error(lambda: read(tmp_path / "moved" / "c")) == 0
    (tmp_path / "moved").rename(tmp_path / "d")
    assert error(lambda: read(tmp_path / "d" / "c")) == errno.EIO
    os.link(tmp_path / "a", tmp_path / "d" / "link")
    assert error(lambda: read(tmp_path / "a")) == errno.EIO
    filtered.set(rule(below=f"{tmp_path}/d", errno=errno.EIO))
    assert error(lambda: read(tmp_path / "b")) == 0
    assert error(lambda: list((tmp_path / "d").iterdir())) == errno.EIO


def test_percent_of_the_requests_are_hit(filtered, tmp_path):
    filtered.set(rule(methods=["read"], errno=errno.EIO, percent=30))
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    failed = sum(error(lambda: os.pread(fd, 1, 0)) == errno.EIO for _ in range(2000))
    os.close(fd)
    assert 480 <= failed <= 720
    assert filtered.counters("s")["failed"] == failed
    assert filtered.counters("s")["matched"] == 2000


def test_attributes_are_what_the_rule_says_and_then_the_truth_again(filtered, tmp_path):
    truth = (tmp_path / "a").stat()
    moments = {
        name: {"sec": sec, "nsec": 5} for sec, name in enumerate(("atime", "mtime", "ctime"), 7)
    }
    wanted = {"ino": 99, "size": 5, "blocks": 3, "perm": 0o7421, "nlink": 9, "uid": 8, "gid": 6}
    filtered.set(rule(path="/**/a", attributes={**wanted, **moments, "kind": "regularFile"}))
    seen = (tmp_path / "a").stat()
    assert (seen.st_ino, seen.st_size, seen.st_blocks, seen.st_mode) == (99, 5, 3, 0o107421)
    assert (seen.st_nlink, seen.st_uid, seen.st_gid) == (9, 8, 6)
    assert (seen.st_atime_ns, seen.st_ctime_ns) == (7_000_000_005, 9_000_000_005)
    assert (tmp_path / "b").stat().st_ino != 99
    filtered.set(rule(path="/**/a", attributes={"kind": "socket"}))
    assert (tmp_path / "a").is_socket()
    assert filtered.counters("s")["overridden"] > 0
    filtered.set()
    assert (tmp_path / "a").stat() == truth
    assert len((tmp_path / "a").read_bytes()) == 10_000


@pytest.mark.parametrize("filling", ["zero", "random"])
def test_a_mistake_in_reading_leaves_the_file_alone(filtered, tmp_path, filling):
    mistake = {"filling": filling, "max_occurrences": 2, "max_length": 10}
    filtered.set(rule(path="/**/a", methods=["read"], mistake=mistake))
    truth = b"0123456789" * 1000
    seen = (tmp_path / "a").read_bytes()
    wrong = sum(one != other for one, other in zip(seen, truth, strict=True))
    assert 0 < wrong <= 2 * 10 * filtered.counters("s")["mistaken"]
    assert (tmp_path / "b").read_bytes() == truth
    (tmp_path / "a").write_bytes(truth)
    filtered.set()
    assert (tmp_path / "a").read_bytes() == truth


def test_a_mistake_in_writing_stays(filtered, tmp_path):
    mistake = {"filling": "zero", "max_occurrences": 1, "max_length": 100}
    filtered.set(rule(path="/**/a", methods=["write"], mistake=mistake))
    (tmp_path / "a").write_bytes(b"1" * 1000)
    filtered.set()
    content = (tmp_path / "a").read_bytes()
    assert len(content) == 1000
    assert 1 <= content.count(0) <= 100
    assert content.count(b"1") == 1000 - content.count(0)


def test_what_is_open_when_a_rule_comes_is_counted_until_it_is_opened_anew(filtered, tmp_path):
    fd = os.open(tmp_path / "a", os.O_RDWR)
    filtered.set(rule(methods=["read"], errno=errno.EIO))
    assert error(lambda: os.read(fd, 1)) == 0
    assert filtered.bypassing() == 1
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    assert error(lambda: os.read(again, 1)) == errno.EIO
    os.close(fd)
    until(lambda: filtered.bypassing() == 0)
    filtered.set()
    assert os.read(again, 3) == b"012"
    os.close(again)


def test_writes_that_the_kernel_serves_cost_us_nothing(filtered, tmp_path):
    """Not even a question for `security.capability` each."""
    filtered.set(rule(methods=["getxattr", "setattr"], latency_us=1))
    fd = os.open(tmp_path / "a", os.O_RDWR)
    for number in range(200):
        os.pwrite(fd, bytes(4096), number * 4096)
    os.close(fd)
    assert filtered.counters("s")["matched"] <= 2


def test_a_rule_that_stays_keeps_its_counters_and_its_waits(filtered, tmp_path):
    slow = rule("slow", path="/**/a", methods=["read"], latency_us=600_000)
    filtered.set(slow)
    waiting = threading.Thread(target=read, args=(tmp_path / "a",))
    start = time.monotonic()
    waiting.start()
    until(lambda: filtered.counters("slow")["delayed"] == 1)
    filtered.set(slow, rule("other", path="/**/b", errno=5))
    filtered.set(slow)
    waiting.join()
    assert 0.6 <= time.monotonic() - start < 1.2
    assert filtered.counters("slow")["delayed"] == 1


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"methods": ["reed"]}, "rule of s: no such method: reed"),
        ({"path": "/a/***"}, "rule of s: path /a/***: more than two `*` stand beside each other"),
        ({"percent": 101}, "rule of s: percent 101 is not from 0 to 100"),
        ({"errno": -1}, "rule of s: -1 is no error number"),
        ({"source": ""}, "a rule without a source"),
        (
            {"mistake": {"filling": "zero", "max_occurrences": 0, "max_length": 1}},
            "a mistake of nothing",
        ),
    ],
)
def test_what_nobody_can_mean_is_refused_and_nothing_changes(filtered, tmp_path, wrong, why):
    filtered.set(rule(path="/**/a", methods=["open"], errno=errno.EIO))
    with pytest.raises(ValueError, match=why.replace("*", r"\*")):
        filtered.set({**rule(), **wrong})
    assert error(lambda: read(tmp_path / "a")) == errno.EIO


def test_the_mount_goes_with_whoever_asked_for_it(tmp_path):
    with Filter.over(tmp_path):
        assert os.path.ismount(tmp_path)
    assert not os.path.ismount(tmp_path)
